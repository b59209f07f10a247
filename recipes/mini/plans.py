"""What passes between the steps: one plan a clip to be made, one clip a clip that exists; both are JSONL."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

Amount = TypeVar("Amount")
Split = Literal["train", "val", "test"]
Labels = dict[str, Any]

CLIP_S = 12.0
RATE_HZ = 16_000
LABEL_KEYS: tuple[str, ...] = (
    "instruments", "instruments_complete", "faint", "lead", "solo", "drums", "ensemble", "vocals", "style",
    "tempo_bpm", "meter", "key", "mode", "density", "title", "composer", "acoustic", "voice", "sound",
)  # fmt: skip
"""Every clip has all of these; null where it is not known."""
TRAIN_FONTS: tuple[str, ...] = ("TimGM6mb", "FluidR3_GM", "Sonivox")
PATCHES = "FreePats"
"""Plays them the third time, where it has the instruments; see `timidity.py`."""
TEST_FONT = "MuseScore_General_Lite"
_AGAIN = ("A", "B", "C", "D")
"""Groups whose training clips are played three times."""
AGAIN, PATCHED = "-again", "-patches"
"""What the id ends with of the clip in another soundfont, its sounds shaded, and of the one that FreePats plays."""
FONT_LICENCES: dict[str, str] = {
    "TimGM6mb": "GPL-2", "FluidR3_GM": "MIT", "Sonivox": "Apache-2.0",
    PATCHES: "GPL-2+ with exception for compositions", TEST_FONT: "MIT",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A clip to be made from a MIDI file (`soundfont` set) or cut from a recording (`soundfont` null)."""

    id: str
    group: str
    work: str
    """The composition, groove file or recording; every clip of one work is in one split."""
    split: Split
    source: str
    """Path below the work folder of the MIDI file or recording."""
    licence: str
    soundfont: str | None = None
    start_s: float | None = None
    """Start of the excerpt; null lets `render.py` choose where notes of a MIDI file sound."""
    labels: Labels = field(default_factory=dict)
    """What the maker knows; `render.py` adds what the excerpt's own notes show."""
    voice: str | None = None
    """Path below the work folder of a voice to mix in."""
    voice_gain_db: float = 0.0
    """How much louder than the rest that voice is."""


def scaled(count: int) -> int:
    """So many of `count` as this run makes: all, or the share that `MINI_FRACTION` says, one at least."""
    return max(1, round(count * float(os.environ.get("MINI_FRACTION", "1"))))


def made_of(amounts: Mapping[Split, Amount]) -> Iterator[tuple[Split, Amount]]:
    """The splits that this run makes, with how much of each: all, or without test where `MINI_WITHOUT_TEST` is set."""
    for split, amount in amounts.items():
        if split != "test" or not os.environ.get("MINI_WITHOUT_TEST"):
            yield split, amount


def seeded(*parts: object) -> random.Random:
    """Give a random generator that depends on `parts` alone, not on the order of work."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def split_of(work: str) -> Split:
    """Send 85 % of works to train, 7.5 % to val, 7.5 % to test, by hash of their name."""
    share = seeded("split", work).random()
    return "train" if share < 0.85 else "val" if share < 0.925 else "test"


def font_of(clip_id: str, split: Split) -> str:
    """Choose a soundfont: test clips use the one that training never uses."""
    return TEST_FONT if split == "test" else seeded("font", clip_id).choice(TRAIN_FONTS)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read all records of a file; a missing file has none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]  # a kill may have cut the last one off


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    part.replace(path)


def write_plans(work_dir: Path, group: str, plans: list[Plan]) -> None:
    """Write `plans/<group>.jsonl`, refusing two plans with one id."""
    if len({plan.id for plan in plans}) != len(plans):
        raise ValueError(f"group {group}: two plans share an id; ids must be unique")
    splits = {split for split, _ in made_of({"train": 0, "val": 0, "test": 0})}
    plans = [plan for plan in plans if plan.split in splits]
    plans += [again for plan in plans if plan.split == "train" and plan.group in _AGAIN for again in _again(plan)]
    write_jsonl(work_dir / "plans" / f"{group}.jsonl", (asdict(plan) for plan in plans))
    print(f"{group}: {len(plans)} plans -> {work_dir / 'plans' / (group + '.jsonl')}")


def _again(plan: Plan) -> Iterator[Plan]:
    """The same notes by others, so that what an instrument sounds like isn't what one font makes of it."""
    assert plan.soundfont is not None
    other = TRAIN_FONTS[(TRAIN_FONTS.index(plan.soundfont) + 1) % len(TRAIN_FONTS)]
    yield replace(plan, id=plan.id + AGAIN, soundfont=other)
    yield replace(plan, id=plan.id + PATCHED, soundfont=PATCHES)


def is_again(clip_id: str) -> bool:
    """Whether a clip is another's notes, played again."""
    return clip_id.endswith((AGAIN, PATCHED))


def read_plans(work_dir: Path, group: str) -> list[Plan]:
    """Read `plans/<group>.jsonl`."""
    return [Plan(**record) for record in read_jsonl(work_dir / "plans" / f"{group}.jsonl")]


def default_work_dir() -> Path:
    """Name the work folder used when `--work` is not given: `work/mini` in the checkout."""
    return Path(__file__).resolve().parents[2] / "work" / "mini"


def complete(labels: Labels) -> Labels:
    """Order labels as in LABEL_KEYS, null where absent; an unknown label is an error."""
    unknown = set(labels) - set(LABEL_KEYS)
    if unknown:
        raise ValueError(f"labels {sorted(unknown)} are not in LABEL_KEYS; add them there or drop them")
    return {key: labels.get(key) for key in LABEL_KEYS}


def music21_corpus() -> Path:
    """Find the scores inside the installed music21, without importing it."""
    spec = find_spec("music21")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("music21 is not installed: pip install -r recipes/mini/requirements.txt")
    return Path(spec.origin).parent / "corpus"
