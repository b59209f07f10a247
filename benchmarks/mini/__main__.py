"""Score a model on the held-out clips, in generated text (greedy).

The features of the test split (works never trained on; rendered clips in a soundfont never trained on) and their labels
are in benchmarks/data, made by recipes/mini/test_set.py, so this needs no audio. All questions take an hour and more on
two cores; with `--state FILE` what was scored stays there, and the same command goes on from it.
Run: python -m benchmarks.mini [--model FOLDER] [--quick] [--state FILE]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import mu_llama
from benchmarks.measure import write_result
from benchmarks.mini.scoring import SEED, read_features, score_descriptions, score_facts, score_task
from benchmarks.mini.tasks import all_tasks
from mu_llama.encoders.pooling import TrackFeatures
from mu_llama.files import read_lines, write_whole
from mu_llama.inference.results import EncodedTrack
from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues.track_labels import TrackLabels

DATA = Path(__file__).parents[1] / "data"
_KINDS = ("own_audio", "shuffled", "blind", "unseen_wording")
_UNANSWERABLE = ("can't tell", "no music")


class Scored:
    """Scores by kind, kept in a file as they come.

    Args:
        path: where; None keeps none.
        asked: what is scored; a file about anything else is refused.
    """

    def __init__(self, path: Path | None, asked: dict[str, Any]) -> None:
        self._path, self._asked = path, asked
        self._scores: dict[str, Any] = {}
        if path is not None and path.exists():
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["asked"] != asked:
                raise SystemExit(f"{path} holds scores of {state['asked']}, this run is {asked}; give another file")
            self._scores = state["scores"]

    def get(self, name: str, score: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was scored before, or is now."""
        if name not in self._scores:
            self._scores[name] = score()
            if self._path is not None:
                write_whole(self._path, [json.dumps({"asked": self._asked, "scores": self._scores})])
        return self._scores[name]


def run(
    model: str,
    *,
    data: Path = DATA,
    quick: bool = False,
    only: Sequence[str] = (),
    state: Path | None = None,
    shuffles: int = 1,
) -> dict[str, Any]:
    """Ask everything and score it.

    Args:
        model: as `mu_llama.load` takes it.
        data: folder of the test split.
        quick: ask a third of the questions.
        only: kinds of question; none for all.
        state: file that keeps scores as they come.
        shuffles: how often other audio is drawn.
    """
    rows = list(read_lines(data / "mini_test.jsonl"))
    listener = mu_llama.load(model, use_cache=False)
    scored = Scored(state, {"model": str(model), "data": str(data), "quick": quick, "shuffles": shuffles})
    width = listener.opened.parts.adapter_config.encoder_width
    features = read_features(data)[..., :width]  # earlier versions read the first parts alone

    def recalled(values: torch.Tensor, name: str) -> EncodedTrack:
        return listener.recall(TrackFeatures(values.numpy(), spans=((0.0, 12.0),), duration_s=12.0), name=name)

    tracks = [recalled(values, row["id"]) for row, values in zip(rows, features, strict=True)]
    blind = recalled(features.mean(0), "average")
    labels = [Track.from_dict(row) for row in rows]
    command = "python -m benchmarks.mini" + " --quick" * quick + f" --shuffles {shuffles}" * (shuffles > 1)
    if only:
        command += " --only " + " ".join(f'"{name}"' for name in only)
    result: dict[str, Any] = {"command": command, "model": listener.name, "tracks": len(rows), "tasks": {}}
    for name, asks in all_tasks(labels).items():
        if only and name not in only:
            continue
        if quick:
            asks = random.Random(SEED).sample(asks, max(min(len(asks), 30), len(asks) // 3))
        score = scored.get(name, partial(score_task, listener, asks, tracks, labels, blind, shuffles))
        result["tasks"][name] = score
        values = " ".join(f"{kind} {score[kind]}" for kind in ("questions", *_KINDS, "tagger"))
        print(f"{name:26} {values}", flush=True)
    if not only:
        result |= _over_tasks(result["tasks"])
    music = [place for place, about in enumerate(labels) if TrackLabels(about).is_music]  # speech has a tempo too
    if not only or "facts" in only:
        measured = [tracks[place] for place in music], [rows[place] for place in music]
        result["facts"] = scored.get("facts", partial(score_facts, listener, *measured))
    if not only or "descriptions" in only:
        described = music[:: 4 if quick else 1]
        known = [TrackLabels(labels[place]) for place in described]
        describe = partial(score_descriptions, listener, [tracks[place] for place in described], known)
        result["descriptions"] = scored.get("descriptions", describe)
    print(json.dumps({name: _without_examples(value) for name, value in result.items() if name != "tasks"}))
    return result


def _without_examples(value: Any) -> Any:
    return {name: part for name, part in value.items() if name != "examples"} if isinstance(value, dict) else value


def _over_tasks(tasks: dict[str, Any]) -> dict[str, Any]:
    """The share of answerable questions that were refused, and the mean over the families of a band."""
    answerable = [score for name, score in tasks.items() if name not in _UNANSWERABLE]
    asked = sum(score["questions"] for score in answerable)
    bands = [score for name, score in tasks.items() if name.startswith("band: ")]
    return {
        "wrongly_refused": round(sum(score["refused"] * score["questions"] for score in answerable) / asked, 1),
        "bands": {
            kind: round(sum(score[kind] for score in bands) / max(1, len(bands)), 1)
            for kind in (*_KINDS, "above_shuffled")
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with mini_test.jsonl and mini_test.safetensors")
    parser.add_argument("--quick", action="store_true", help="a third of the questions, for a look")
    parser.add_argument("--only", nargs="*", default=(), help='kinds, e.g. "solo instrument" facts descriptions')
    parser.add_argument("--shuffles", type=int, default=1, choices=range(1, 101), metavar="N",
                        help="how often other audio is drawn (default 1)")  # fmt: skip
    parser.add_argument("--state", type=Path, help="keeps what was scored of these very weights, to go on from")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/mini.json")
    arguments = parser.parse_args()
    scores = run(
        arguments.model,
        data=arguments.data,
        quick=arguments.quick,
        only=arguments.only,
        state=arguments.state,
        shuffles=arguments.shuffles,
    )
    write_result("mini", scores, path=arguments.out)
