"""Chord progressions for the band songs, and simple parts over them: a lead, or a bass with chords."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from recipes.mini.abc_tunes import key_name
from recipes.mini.instruments import Soloist
from recipes.mini.notes import Note

_LETTERS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
# A chord is the semitones of its root above the tonic and the suffix MMA knows.
_CHORD_TONES = {"": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10), "M7": (0, 4, 7, 11), "m7": (0, 3, 7, 10)}
_MAJOR = (
    "0 9m 5 7", "0 7 9m 5", "0 5 7 0", "9m 5 0 7", "0 4m 5 7", "0 0 5 5 0 7 0 7", "0 2m 7 0", "0 9m 2m 7",
    "5 0 7 0",
)  # fmt: skip
_MINOR = (
    "0m 8 3 10", "0m 5m 7 0m", "0m 10 8 7", "0m 5m 10 3", "0m 0m 5m 0m 8 7 0m 7", "0m 3 10 5m",
    "0m 8 5m 7",
)  # fmt: skip
_JAZZ_MAJOR = (
    "2m7 77 0M7 97",
    "0M7 97 2m7 77",
    "0M7 5M7 4m7 97 2m7 77 0M7 77",
    "0M7 2m7 4m7 97 2m7 77 0M7 0M7",
)
_JAZZ_MINOR = ("0m7 5m7 77 0m7", "0m7 8M7 2m7 77", "5m7 107 3M7 8M7 2m7 77 0m7 0m7")
_BLUES = ("07 07 07 07 57 57 07 07 77 57 07 77",)
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), None: (0, 3, 5, 7, 10)}
_CHORD_INSTRUMENT = {
    "heavy metal": 30, "punk rock": 29, "rock": 29, "ska": 27, "reggae": 17, "house": 81, "techno": 81,
    "drum and bass": 89, "ambient": 89, "hip-hop": 4, "country": 25, "bossa nova": 24, "samba": 24,
}  # fmt: skip
_BASS_INSTRUMENT = {"house": 38, "techno": 38, "drum and bass": 39, "jazz": 32, "bossa nova": 32, "samba": 32}


@dataclass(frozen=True)
class Progression:
    """One chord a bar, with the key it is in."""

    names: list[str]
    """As MMA writes them."""
    tones: list[tuple[int, ...]]
    """Pitch classes of each chord, root first."""
    key: str
    mode: str | None
    scale: frozenset[int]


def choose_progression(style: str, num_bars: int, rng: Random) -> Progression:
    """Choose key, mode and a progression that suits the style, repeated to `num_bars`."""
    mode: str | None = "minor" if rng.random() < 0.4 else "major"
    pool: tuple[str, ...] = _MINOR if mode == "minor" else _MAJOR
    if style in ("blues", "boogie-woogie"):
        mode, pool = None, _BLUES
    elif any(word in style for word in ("jazz", "swing", "bossa", "show", "foxtrot")):
        pool = _JAZZ_MINOR if mode == "minor" else _JAZZ_MAJOR
    tonic, names, tones = rng.randrange(12), [], []
    for chord in rng.choice(pool).split():
        # "107" is the seventh chord on semitone 10; "77" that on 7; "9m" the minor triad on 9.
        digits = 2 if chord[:2] in ("10", "11") else 1
        root, kind = (tonic + int(chord[:digits])) % 12, chord[digits:]
        names.append(_LETTERS[root] + kind)
        tones.append(tuple((root + step) % 12 for step in _CHORD_TONES[kind]))
    rounds = num_bars // len(names) + 1
    scale = frozenset((tonic + step) % 12 for step in _SCALES[mode])
    return Progression((names * rounds)[:num_bars], (tones * rounds)[:num_bars], key_name(tonic), mode, scale)


def lead_line(
    progression: Progression, bar_s: float, beats: int, *, channel: int, soloist: Soloist, rng: Random
) -> list[Note]:
    """Write a melody: chord tones on the beats, scale steps between, every other bar in one rhythm."""
    low, high = soloist.low + 5, soloist.high - 4
    program, loud, at_pitch = rng.choice(soloist.programs), rng.randint(104, 120), (low + high) // 2
    rhythms = [_rhythm(beats, rng) for _ in range(2)]
    notes = []
    for bar, tones in enumerate(progression.tones):
        for begin, length in rhythms[bar % 2]:
            allowed = set(tones) if begin == int(begin) else progression.scale | set(tones)
            near = [p for p in range(low, high + 1) if p % 12 in allowed and 0 < abs(p - at_pitch) <= 7]
            at_pitch = rng.choice(near or [at_pitch])
            start_s = (bar + begin / beats) * bar_s
            end_s = start_s + 0.92 * length / beats * bar_s
            notes.append(Note(start_s, end_s, channel, program, at_pitch, loud - rng.randint(0, 8)))
    return notes


def _rhythm(beats: int, rng: Random) -> list[tuple[float, float]]:
    """Fill a bar with lengths of one half to two beats; gives (begin, length) in beats."""
    at, out = 0.0, []
    while at < beats:
        length = min(rng.choice((0.5, 0.5, 1.0, 1.0, 1.5, 2.0)), beats - at)
        out.append((at, length))
        at += length
    return out


def bass_and_chords(
    progression: Progression, bar_s: float, beats: int, *, channels: list[int], style: str, rng: Random
) -> list[Note]:
    """Write root notes for a bass and struck chords for the instrument the style commonly has."""
    bass, chord = _BASS_INSTRUMENT.get(style, 33), _CHORD_INSTRUMENT.get(style, 27)
    step, notes = rng.choice((0.5, 1.0)), []
    is_sustained = style in ("ambient", "drum and bass") or rng.random() < 0.3
    for bar, tones in enumerate(progression.tones):
        begin_s, beat_s = bar * bar_s, bar_s / beats
        for k in range(int(beats / step)):
            at_s, root = begin_s + k * step * beat_s, 28 + (tones[0] - 4) % 12
            notes.append(Note(at_s, at_s + 0.9 * step * beat_s, channels[0], bass, root, 96))
        for k in range(1 if is_sustained else beats):
            length_s = 0.95 * (bar_s if is_sustained else beat_s)
            at_s = begin_s + k * beat_s
            notes += [Note(at_s, at_s + length_s, channels[1], chord, 52 + (p - 4) % 12, 84) for p in tones]
    return notes
