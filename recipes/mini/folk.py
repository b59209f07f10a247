"""Group C: old tunes played by one instrument, or by one with a drone or chords below it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from random import Random

from recipes.mini.abc_tunes import Tune, key_name, play, read_books
from recipes.mini.instruments import PLAIN_NAMES, SOLOISTS, Soloist
from recipes.mini.notes import Note, write_midi
from recipes.mini.plans import (
    Labels,
    Plan,
    Split,
    default_work_dir,
    font_of,
    made_of,
    scaled,
    seeded,
    split_of,
    write_plans,
)

# Clips wanted: alone, with a second player.
AMOUNTS: dict[Split, tuple[int, int]] = {"train": (1116, 396), "val": (72, 18), "test": (18 * 13, 54)}
_LICENCE = "tune public domain; transcription by permission of the encoders (music21 corpus)"
# Meter: quarters a beat, quarters a bar, beats a minute.
METERS: dict[str, tuple[float, float, tuple[int, int]]] = {
    "2/2": (2.0, 4.0, (55, 115)), "4/4": (1.0, 4.0, (70, 170)), "2/4": (1.0, 2.0, (50, 120)),
    "3/4": (1.0, 3.0, (70, 170)), "6/8": (1.5, 3.0, (50, 130)), "9/8": (1.5, 4.5, (50, 130)),
    "12/8": (1.5, 6.0, (50, 120)),
}  # fmt: skip
_SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
# General MIDI programs of the second player: holding the tonic and fifth, or playing chords.
_DRONES: tuple[int, ...] = (109, 20, 42, 21, 19)
_CHORDS: tuple[int, ...] = (24, 25, 0, 46, 21, 6, 105, 19)


def _melody(raw: list[Note], soloist: Soloist, rng: Random) -> tuple[list[Note], int]:
    """Move a tune into the soloist's range; give it with the semitones it moved (quarters kept as time)."""
    program, turn = rng.choice(soloist.programs), rng.randint(-4, 4)
    middle = sorted(n.pitch for n in raw)[len(raw) // 2] + turn
    octave = 12 * round(((soloist.low + soloist.high) / 2 - middle) / 12)
    moved = [
        replace(n, channel=0, program=program, pitch=n.pitch + turn + octave, velocity=rng.randint(82, 112))
        for n in raw
    ]
    return moved, turn


def chords_of_bars(tune: Tune, melody: list[Note], turn: int, bar: float) -> list[tuple[float, tuple[int, ...]]]:
    """Choose for each bar the triad on I, IV, V, VI or VII that holds most of the melody's time."""
    scale = _SCALES[tune.mode]
    tonic = (tune.tonic + turn) % 12
    triads = {d: tuple((tonic + scale[(d + step) % 7]) % 12 for step in (0, 2, 4)) for d in (0, 3, 4, 5, 6)}
    chosen = []
    for number in range(int(max(n.end_s for n in melody) / bar) + 1):
        begin, end = number * bar, (number + 1) * bar
        weights = {d: 0.4 * (d == 0) + 0.2 * (d in (3, 4)) for d in triads}
        for n in melody:
            shared = min(n.end_s, end) - max(n.start_s, begin)
            for degree, triad in triads.items():
                weights[degree] += max(shared, 0.0) * (n.pitch % 12 in triad)
        chosen.append((begin, triads[max(weights, key=lambda d: weights[d])]))
    return chosen


def accompany(
    tune: Tune, melody: list[Note], turn: int, *, program: int, channel: int, drone: bool, rng: Random
) -> list[Note]:
    """Write the second part: tonic and fifth held, or one chord a bar struck in one of three ways."""
    quarters, bar, _ = METERS[tune.meter]
    loud, part = rng.randint(58, 80), []
    if drone:
        low = 48 + (tune.tonic + turn) % 12 - (12 if (tune.tonic + turn) % 12 > 6 else 0)
        end = max(n.end_s for n in melody)
        for start in [8 * bar * k for k in range(int(end / (8 * bar)) + 1)]:
            stop = min(start + 8 * bar, end)
            part += [Note(start, stop, channel, program, p, loud) for p in (low, low + 7)]
        return part
    way = rng.choice(("whole", "beats", "broken"))
    for begin, (root, third, fifth) in chords_of_bars(tune, melody, turn, bar):
        pitches = [36 + root, 48 + third, 48 + fifth, 48 + root]
        if way == "whole":
            part += [Note(begin, begin + bar * 0.97, channel, program, p, loud) for p in pitches]
            continue
        for beat in range(round(bar / quarters)):
            at, stop = begin + beat * quarters, begin + (beat + 0.9) * quarters
            struck = [pitches[0]] if beat == 0 else pitches[1:]
            if way == "broken":
                struck = [pitches[beat % 4], pitches[(beat + 2) % 4]]
            part += [Note(at, stop, channel, program, p, loud) for p in struck]
    return part


def _arrange(tune: Tune, raw: list[Note], soloist: Soloist, *, duo: bool, rng: Random) -> tuple[list[Note], Labels]:
    """Make the sounding notes of one clip, in seconds, and the labels known from making them."""
    quarters, _, (slow, fast) = METERS[tune.meter]
    melody, turn = _melody(raw, soloist, rng)
    notes = list(melody)
    if duo:
        drone = rng.random() < 0.35
        second = rng.choice([p for p in (_DRONES if drone else _CHORDS) if PLAIN_NAMES[p] != soloist.name])
        notes += accompany(tune, melody, turn, program=second, channel=1, drone=drone, rng=rng)
    elif soloist.chords and rng.random() < 0.6:
        program = melody[0].program
        notes += accompany(tune, melody, turn, program=program, channel=0, drone=False, rng=rng)
    bpm = rng.randint(slow, fast)
    quarter_s, length = 60 / bpm / quarters, max(n.end_s for n in notes)
    passes = int(40 / (length * quarter_s)) + 1
    timed = [
        replace(n, start_s=(n.start_s + k * length) * quarter_s, end_s=(n.end_s + k * length) * quarter_s)
        for k in range(passes)
        for n in notes
    ]
    ends_on_tonic = raw[-1].pitch % 12 == tune.tonic
    labels: Labels = {
        "lead": soloist.name, "solo": not duo, "ensemble": "duo" if duo else "solo", "vocals": False,
        "style": tune.style, "tempo_bpm": bpm, "meter": tune.meter, "title": tune.title,
    }  # fmt: skip
    if ends_on_tonic:  # otherwise the book's key signature may not say the key
        labels |= {"key": key_name(tune.tonic + turn), "mode": tune.mode}
    return timed, labels


def make_plans(work_dir: Path) -> None:
    """Write a MIDI file and a plan for every clip wanted, going round the instruments in turn."""
    tunes = [t for t in read_books() if t.meter in METERS]
    seeded("folk order").shuffle(tunes)
    plans: list[Plan] = []
    for split, (num_solo, num_duo) in made_of(AMOUNTS):
        pool = iter([t for t in tunes if split_of(t.work) == split] * 4)
        for number in range(scaled(num_solo) + scaled(num_duo)):
            duo, raw = number >= scaled(num_solo), list[Note]()
            while len(raw) < 24:
                tune = next(pool)
                raw = play(tune, work_dir)
            clip_id = f"C-{split}-{number:04d}"
            rng = seeded("folk", clip_id)
            timed, labels = _arrange(tune, raw, SOLOISTS[number % len(SOLOISTS)], duo=duo, rng=rng)
            path = Path("midi/C") / f"{clip_id}.mid"
            write_midi(work_dir / path, timed)
            font = font_of(clip_id, split)
            plans.append(Plan(clip_id, "C", tune.work, split, path.as_posix(), _LICENCE, font, None, labels))
    write_plans(work_dir, "C", plans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    make_plans(parser.parse_args().work)
