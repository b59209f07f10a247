"""Rags of our own for training, in the manner of about 1900: a striding left hand, a syncopated right one.

The only real rag that can be had here, Joplin's, is in the test split, so its style is learned from these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from recipes.mini.abc_tunes import key_name
from recipes.mini.notes import Note, write_midi
from recipes.mini.plans import Labels, Plan, Split, font_of, made_of, scaled, seeded

AMOUNTS: dict[Split, int] = {"train": 60, "val": 6}
_LICENCE = "Apache-2.0 (written by recipes/mini/ragtime.py)"
_NUM_BARS, _SIXTEENTHS = 32, 8
_PIANOS = (0, 0, 0, 1, 3)
"""General MIDI: grand, bright and honky-tonk."""
# A bar is one chord or two: semitones of the root above the tonic, and the kind.
_STRAINS = (
    "0 0 77 77 0 0 27 77", "0 97 27 77,0 0 97 27 77", "0 0 5 6d,0 97 27 77 0", "5 5m 0 97 27 77 0 0",
    "77 77 0 0 77 77 0 0,77", "0,47 9m 5,6d 0,97 27 77 0 0,77", "9m 47 9m 9m 27 27 77 77", "0 07 5 5m 0,97 27,77 0 0",
)  # fmt: skip
_KINDS = {"": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10), "d": (0, 3, 6, 9)}
# Sixteenths of a 2/4 bar on which the right hand strikes; each note lasts until the next.
_SYNCOPATED = ((0, 1, 3, 4, 5, 7), (0, 1, 3, 5, 6, 7), (1, 2, 3, 5, 6), (0, 1, 3, 4, 6), (0, 2, 3, 5, 6), (1, 3, 4, 6))
_PLAIN = ((0, 1, 2, 3, 4, 6), (0, 2, 4, 5, 6, 7), (0, 4))
_LOWEST, _HIGHEST = 62, 86


def _bars(tonic: int, rng: Random) -> list[list[tuple[int, tuple[int, ...]]]]:
    """Chords of each bar: (root, pitch classes)."""
    bars = []
    for strain in (rng.choice(_STRAINS) for _ in range(_NUM_BARS // 8)):
        for bar in strain.split():
            chords = []
            for chord in bar.split(","):
                kind = chord[-1] if len(chord) > 1 else ""
                root = (tonic + int(chord[: len(chord) - len(kind)])) % 12
                chords.append((root, tuple((root + step) % 12 for step in _KINDS[kind])))
            bars.append(chords)
    return bars


def _left_hand(bar: Sequence[tuple[int, tuple[int, ...]]], at: int) -> Iterator[tuple[int, int, int]]:
    """Give (begin, length, pitch) in sixteenths: a bass octave and a chord, twice a bar."""
    for half, (root, tones) in enumerate((bar[0], bar[-1])):
        low = 33 + ((root if half == 0 or len(bar) > 1 else tones[2]) - 33) % 12
        yield from ((at + 4 * half, 2, pitch) for pitch in (low, low + 12))
        yield from ((at + 4 * half + 2, 1, 52 + (tone - 52) % 12) for tone in tones[:3])


def _right_hand(bars: Sequence[Sequence[tuple[int, tuple[int, ...]]]], rng: Random) -> Iterator[tuple[int, int, int]]:
    """Give a melody of chord tones with neighbours between; struck in octaves or with a chord tone below."""
    pitch, rhythms = rng.randint(70, 78), [rng.choice(_SYNCOPATED), rng.choice((*_SYNCOPATED, *_PLAIN))]
    in_octaves = rng.random() < 0.5
    for number, bar in enumerate(bars):
        rhythm = rhythms[number % 2] if rng.random() < 0.8 else rng.choice(_SYNCOPATED)
        for begin, end in zip(rhythm, (*rhythm[1:], _SIXTEENTHS), strict=True):
            tones = bar[0][1] if begin < 4 else bar[-1][1]
            near = [p for p in range(_LOWEST, _HIGHEST) if p % 12 in tones and 0 < abs(p - pitch) < 8]
            pitch = rng.choice(near or [74]) if rng.random() < 0.8 else pitch + rng.choice((-1, 1))
            at = number * _SIXTEENTHS + begin
            yield at, end - begin, pitch
            if end - begin > 1 or rng.random() < 0.3:
                below = [p for p in range(pitch - 9, pitch - 2) if p % 12 in tones]
                yield at, end - begin, pitch - 12 if in_octaves or not below else rng.choice(below)


def compose_rag(name: str) -> tuple[list[Note], Labels]:
    """Write a rag of 32 bars; the same name gives the same."""
    rng = seeded("rag", name)
    tonic, bpm, program = rng.randrange(12), rng.randint(72, 120), rng.choice(_PIANOS)
    bars, sixteenth_s = _bars(tonic, rng), 15 / bpm
    left = [note for number, bar in enumerate(bars) for note in _left_hand(bar, number * _SIXTEENTHS)]
    notes = [
        Note(at * sixteenth_s, (at + 0.95 * length) * sixteenth_s, hand, program, pitch, loud + rng.randint(-8, 8))
        for hand, loud, part in ((0, 92, _right_hand(bars, rng)), (1, 80, left))
        for at, length, pitch in part
    ]
    labels = {"style": "ragtime", "ensemble": "solo", "solo": True, "tempo_bpm": bpm, "meter": "2/4",
              "key": key_name(tonic), "mode": "major"}  # fmt: skip
    return sorted(notes, key=lambda note: note.start_s), labels


def rag_plans(work_dir: Path) -> list[Plan]:
    """Write the rags as MIDI, with a plan for each."""
    plans = []
    for split, count in made_of(AMOUNTS):
        for number in range(scaled(count)):
            name = f"B-{split}-rag-{number:02d}"
            notes, labels = compose_rag(name)
            path = Path("midi/B") / f"{name}.mid"
            write_midi(work_dir / path, notes)
            font = font_of(name, split)
            plans.append(Plan(name, "B", name, split, path.as_posix(), _LICENCE, font, None, labels))
    return plans
