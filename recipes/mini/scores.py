"""Group B: chorales by Bach and quartets by Mozart and Haydn, as written and scored for other players."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from abc_tunes import key_name
from notes import Note, write_midi
from plans import (
    Labels,
    Plan,
    Split,
    default_work_dir,
    font_of,
    music21_corpus,
    seeded,
    split_of,
    write_plans,
)

AMOUNTS: dict[Split, int] = {"train": 150, "val": 15, "test": 48}
_LICENCE = "work public domain; encoding by permission of the encoders (music21 corpus)"
_SIMPLE_METERS = ("2/4", "3/4", "4/4")
_LENGTH_S = 40.0


@dataclass(frozen=True)
class Scoring:
    """Who plays four parts, from the highest to the lowest."""

    ensemble: str
    programs: tuple[int, int, int, int]
    doubled_by: int | None = None
    """A program that plays all parts along."""
    labels: tuple[tuple[str, Any], ...] = ()


_ALONE = (("solo", True),)
_SUNG = (("vocals", True), ("solo", False))
SCORINGS: tuple[Scoring, ...] = (
    Scoring("choir", (52, 52, 52, 52), labels=_SUNG),
    Scoring("string quartet", (40, 40, 41, 42), labels=(("solo", False),)),
    Scoring("solo", (19, 19, 19, 19), labels=_ALONE),
    Scoring("brass quartet", (56, 60, 57, 58), labels=(("solo", False),)),
    Scoring("string orchestra", (48, 48, 48, 48), labels=(("solo", False),)),
    Scoring("choir", (52, 52, 52, 52), doubled_by=19, labels=_SUNG),
    Scoring("solo", (0, 0, 0, 0), labels=_ALONE),
    Scoring("woodwind quartet", (73, 68, 71, 70), labels=(("solo", False),)),
    Scoring("solo", (6, 6, 6, 6), labels=_ALONE),
    Scoring("saxophone quartet", (64, 65, 66, 67), labels=(("solo", False),)),
    Scoring("solo", (24, 24, 24, 24), labels=_ALONE),
)


def _movements() -> list[tuple[Path, str, str]]:
    """List (file, work, composer); the movements of one quartet are one work."""
    corpus = music21_corpus()
    chorales = [(p, f"score:bach/{p.stem}", "Johann Sebastian Bach") for p in (corpus / "bach").glob("*.mxl")]
    quartets = [
        (p, f"score:{who}/{p.parent.name}", full)
        for who, full in (("mozart", "Wolfgang Amadeus Mozart"), ("haydn", "Joseph Haydn"))
        for p in (corpus / who).glob("*/movement*.mxl")
    ]
    return sorted(chorales) + sorted(quartets) * 3


def _read(path: Path) -> tuple[list[list[tuple[float, float, int]]], str | None, Any]:
    """Read four parts as (begin, end, pitch) in quarters, the one meter if there is one, the first key."""
    from music21 import converter

    score = converter.parse(path)
    meters = {sign.ratioString for sign in score.recurse().getElementsByClass("TimeSignature")}
    keys = list(score.parts[0].flatten().getElementsByClass("Key"))
    parts = []
    for part in score.stripTies().parts[:4]:
        notes = [(float(n.offset), float(n.quarterLength), n.pitches) for n in part.flatten().notes]
        parts.append([(at, at + long, p.midi) for at, long, pitches in notes for p in pitches if long > 0])
    return parts, meters.pop() if len(meters) == 1 else None, keys[0] if keys else None


def _perform(parts: list[list[tuple[float, float, int]]], scoring: Scoring, turn: int, bpm: int, rng: Random
             ) -> list[Note]:  # fmt: skip
    """Play the parts, repeated until the piece is long enough for an excerpt."""
    quarter_s, notes = 60 / bpm, []
    length = max(end for part in parts for _, end, _ in part)
    players = [(list(scoring.programs), 0, 90)]
    if scoring.doubled_by is not None:
        players.append(([scoring.doubled_by] * 4, 4, 62))
    for programs, first_channel, loud in players:
        for voice, part in enumerate(parts):
            for turn_number in range(int(_LENGTH_S / (length * quarter_s)) + 1):
                for begin, end, pitch in part:
                    at_s = (begin + turn_number * length) * quarter_s
                    stop_s = max((end + turn_number * length) * quarter_s - 0.02, at_s + 0.05)
                    velocity, program = loud + rng.randint(-8, 8), programs[voice]
                    notes.append(Note(at_s, stop_s, first_channel + voice, program, pitch + turn, velocity))
    return sorted(notes, key=lambda n: n.start_s)


def _labels(path: Path, composer: str, meter: str | None, key: Any, turn: int, bpm: int) -> Labels:
    """Say what is known of a piece; the key only of chorales, for quartets leave theirs on the way."""
    chorale = composer.endswith("Bach")
    known_key = chorale and key is not None and key.mode in ("major", "minor")
    return {
        "composer": composer,
        "style": "Baroque chorale" if chorale else "Classical-period chamber music",
        "title": f"Chorale {path.stem.upper().replace('BWV', 'BWV ')}" if chorale else None,
        "tempo_bpm": bpm if meter in _SIMPLE_METERS else None,
        "meter": meter,
        "key": key_name(key.tonic.pitchClass + turn) if known_key else None,
        "mode": key.mode if known_key else None,
    }


def make_plans(work_dir: Path) -> None:
    """Write a MIDI file and a plan for every clip wanted, going round the scorings in turn."""
    movements = _movements()
    seeded("score order").shuffle(movements)
    plans: list[Plan] = []
    for split, num_clips in AMOUNTS.items():
        pool = iter([m for m in movements if split_of(m[1]) == split] * 4)
        made = 0
        while made < num_clips:
            path, work, composer = next(pool)
            scoring = SCORINGS[made % len(SCORINGS)]
            if scoring.ensemble == "choir" and "bach" not in work:
                continue
            parts, meter, key = _read(path)
            if len(parts) != 4 or not all(parts):
                continue
            clip_id = f"B-{split}-{made:04d}"
            rng = seeded("score", clip_id)
            turn = rng.randint(-2, 2)
            bpm = rng.randint(58, 96) if "bach" in work else rng.randint(76, 132)
            midi = Path("midi/B") / f"{clip_id}.mid"
            write_midi(work_dir / midi, _perform(parts, scoring, turn, bpm, rng))
            labels = {
                **_labels(path, composer, meter, key, turn, bpm),
                "ensemble": scoring.ensemble,
                **dict(scoring.labels),
            }
            font = font_of(clip_id, split)
            plans.append(Plan(clip_id, "B", work, split, midi.as_posix(), _LICENCE, font, None, labels))
            made += 1
        print(f"B: {split} made", flush=True)
    write_plans(work_dir, "B", plans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    make_plans(parser.parse_args().work)
