"""Group B: chorales, madrigals and quartets as written and scored for other players, and rags.

Beethoven's quartets and Joplin's rag are in the test split alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from recipes.mini.abc_tunes import key_name
from recipes.mini.notes import Note, write_midi
from recipes.mini.plans import (
    Labels,
    Plan,
    Split,
    default_work_dir,
    font_of,
    made_of,
    music21_corpus,
    scaled,
    seeded,
    split_of,
    write_plans,
)
from recipes.mini.ragtime import rag_plans

AMOUNTS: dict[Split, int] = {"train": 720, "val": 48, "test": 150}
_LICENCE = "work public domain; encoding by permission of the encoders (music21 corpus)"
_SIMPLE_METERS = ("2/4", "3/4", "4/4")
_LENGTH_S = 40.0


@dataclass(frozen=True)
class Scoring:
    """Who plays four parts, from the highest to the lowest."""

    ensemble: str
    programs: tuple[int, int, int, int]
    doubled_by: tuple[int, ...] = ()
    """Programs that play along, the parts from the highest to the lowest; one alone plays all of them."""
    labels: tuple[tuple[str, Any], ...] = ()


_ALONE = (("solo", True),)
_SUNG = (("vocals", True), ("solo", False))
_GROUP = (("solo", False),)
_WINDS = (73, 71, 60, 70)
SCORINGS: tuple[Scoring, ...] = (
    Scoring("choir", (52, 52, 52, 52), labels=_SUNG),
    Scoring("string quartet", (40, 40, 41, 42), labels=_GROUP),
    Scoring("solo", (19, 19, 19, 19), labels=_ALONE),
    Scoring("orchestra", (48, 48, 48, 48), doubled_by=_WINDS, labels=_GROUP),
    Scoring("brass quartet", (56, 60, 57, 58), labels=_GROUP),
    Scoring("choir", (53, 53, 53, 53), labels=_SUNG),
    Scoring("string orchestra", (48, 48, 48, 48), labels=_GROUP),
    Scoring("choir", (52, 52, 52, 52), doubled_by=(19,), labels=_SUNG),
    Scoring("solo", (0, 0, 0, 0), labels=_ALONE),
    Scoring("orchestra", (40, 48, 41, 42), doubled_by=(56, 60, 57, 58), labels=_GROUP),
    Scoring("woodwind quartet", (73, 68, 71, 70), labels=_GROUP),
    Scoring("choir", (52, 53, 52, 53), doubled_by=(48,), labels=_SUNG),
    Scoring("solo", (6, 6, 6, 6), labels=_ALONE),
    Scoring("orchestra", (49, 48, 48, 43), doubled_by=(68, 71, 60, 47), labels=_GROUP),
    Scoring("saxophone quartet", (64, 65, 66, 67), labels=_GROUP),
    Scoring("string quartet", (40, 40, 41, 42), labels=_GROUP),
    Scoring("solo", (24, 24, 24, 24), labels=_ALONE),
    Scoring("choir", (52, 52, 52, 52), labels=_SUNG),
    Scoring("solo", (21, 21, 21, 21), labels=_ALONE),
)
_STYLES = {
    "bach": ("Johann Sebastian Bach", "Baroque chorale"),
    "monteverdi": ("Claudio Monteverdi", "Renaissance madrigal"),
    "josquin": ("Josquin des Prez", "Renaissance vocal music"),
    "mozart": ("Wolfgang Amadeus Mozart", "Classical-period chamber music"),
    "haydn": ("Joseph Haydn", "Classical-period chamber music"),
    "beethoven": ("Ludwig van Beethoven", "Classical-period chamber music"),
    "joplin": ("Scott Joplin", "ragtime"),
}
_VOCAL = frozenset({"bach", "monteverdi", "josquin"})
_TEST_ONLY = frozenset({"beethoven", "joplin"})


def _movements() -> list[tuple[Path, str, str]]:
    """List (file, work, whose folder); the movements of one quartet are one work."""
    corpus, works = music21_corpus(), list[tuple[Path, str, str]]()
    for who, times in (("bach", 1), ("monteverdi", 2), ("josquin", 2)):
        works += [(p, f"score:{who}/{p.stem}", who) for p in sorted((corpus / who).glob("*.mxl"))] * times
    for who, times in (("mozart", 3), ("haydn", 3), ("beethoven", 2)):
        works += [
            (p, f"score:{who}/{p.stem if p.parent.name == who else p.parent.name}", who)
            for p in sorted((corpus / who).rglob("*.mxl"))
        ] * times
    return works + [(corpus / "joplin/maple_leaf_rag.mxl", "score:joplin/maple_leaf_rag", "joplin")] * 8


def _split(movement: tuple[Path, str, str]) -> Split:
    return "test" if movement[2] in _TEST_ONLY else split_of(movement[1])


@cache
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
    if scoring.doubled_by:
        players.append((list(scoring.doubled_by) * (4 // len(scoring.doubled_by)), 4, 78))
    for programs, first_channel, loud in players:
        for voice, part in enumerate(parts):
            for turn_number in range(int(_LENGTH_S / (length * quarter_s)) + 1):
                for begin, end, pitch in part:
                    at_s = (begin + turn_number * length) * quarter_s
                    stop_s = max((end + turn_number * length) * quarter_s - 0.02, at_s + 0.05)
                    velocity, program = loud + rng.randint(-8, 8), programs[voice]
                    notes.append(Note(at_s, stop_s, first_channel + voice, program, pitch + turn, velocity))
    return sorted(notes, key=lambda n: n.start_s)


def _labels(path: Path, who: str, meter: str | None, key: Any, turn: int, bpm: int) -> Labels:
    """Say what is known of a piece; the key only of chorales, for quartets leave theirs on the way."""
    composer, style = _STYLES[who]
    known_key = who == "bach" and key is not None and key.mode in ("major", "minor")
    return {
        "composer": composer,
        "style": style,
        "title": f"Chorale {path.stem.upper().replace('BWV', 'BWV ')}" if who == "bach" else None,
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
    for split, num_clips in made_of(AMOUNTS):
        pool = iter([m for m in movements if _split(m) == split] * 4)
        made = 0
        while made < scaled(num_clips):
            movement = next(pool)
            rag = movement[2] == "joplin"
            scoring = Scoring("solo", (0, 0, 0, 0), labels=_ALONE) if rag else SCORINGS[made % len(SCORINGS)]
            if scoring.ensemble == "choir" and movement[2] not in _VOCAL:
                continue
            plan = _make(work_dir, movement, scoring, f"B-{split}-{made:04d}", split)
            if plan is not None:
                plans.append(plan)
                made += 1
        print(f"B: {split} made", flush=True)
    write_plans(work_dir, "B", plans + rag_plans(work_dir))


def _make(work_dir: Path, movement: tuple[Path, str, str], scoring: Scoring, clip_id: str, split: Split
          ) -> Plan | None:  # fmt: skip
    """Write one score as MIDI; None where it hasn't the parts that the scoring needs."""
    path, work, who = movement
    parts, meter, key = _read(path)
    if who == "joplin" and len(parts) == 2:
        parts = [*parts, [], []]
    elif len(parts) != 4 or not all(parts):
        return None
    rng = seeded("score", clip_id)
    turn = rng.randint(-2, 2)
    bpm = rng.randint(58, 96) if who in _VOCAL else rng.randint(76, 132)
    midi = Path("midi/B") / f"{clip_id}.mid"
    write_midi(work_dir / midi, _perform(parts, scoring, turn, bpm, rng))
    labels = {**_labels(path, who, meter, key, turn, bpm), "ensemble": scoring.ensemble, **dict(scoring.labels)}
    font = font_of(clip_id, split)
    return Plan(clip_id, "B", work, split, midi.as_posix(), _LICENCE, font, None, labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    make_plans(parser.parse_args().work)
