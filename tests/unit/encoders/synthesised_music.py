"""Music made of sines and noise, the same on every machine: clips for tests and benchmarks of encoders."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE_HZ = 16000
STYLES = ("chamber", "band", "club")
Sound = npt.NDArray[np.float64]

_CHORDS = ((57, 60, 64), (53, 57, 60), (48, 52, 55), (55, 59, 62))  # A minor, F, C, G as MIDI notes


def synthesise(style: str, duration_s: float, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Make a clip of music at 16 kHz, peaking at 1.

    Args:
        style: `chamber` (slow bowed chords and a plucked melody), `band` (drums, bass, strummed chords) or
            `club` (four on the floor, bass and a synthetic arpeggio).
        duration_s: length in seconds.
        seed: picks the melody and the noise.

    Returns:
        Samples of shape (S,).
    """
    random = np.random.default_rng([STYLES.index(style), seed])
    sound = np.zeros(round(duration_s * RATE_HZ))
    beat_s = {"chamber": 0.8, "band": 0.5, "club": 0.46}[style]
    for beat in range(int(duration_s / beat_s) + 1):
        chord = _CHORDS[beat // 4 % 4]
        {"chamber": _chamber, "band": _band, "club": _club}[style](sound, random, beat, beat_s, chord)
    return (sound / np.abs(sound).max()).astype(np.float32)


def _chamber(sound: Sound, random: np.random.Generator, beat: int, beat_s: float, chord: tuple[int, ...]) -> None:
    if beat % 4 == 0:
        for note in (chord[0] - 12, *chord):
            _add(
                sound,
                beat * beat_s,
                0.25 * _tone(note, 4 * beat_s, attack_s=0.3, decay_s=4, num_harmonics=14, vibrato=0.004),
            )
    _add(sound, beat * beat_s, 0.5 * _tone(int(random.choice(chord)) + 12, 1.5, decay_s=0.4, num_harmonics=8))


def _band(sound: Sound, random: np.random.Generator, beat: int, beat_s: float, chord: tuple[int, ...]) -> None:
    start_s = beat * beat_s
    _add(sound, start_s, _kick() if beat % 2 == 0 else 0.6 * _noise(random, 0.15, 0.05))
    for half in (0, 0.5):
        _add(sound, start_s + half * beat_s, 0.2 * np.diff(_noise(random, 0.06, 0.015), prepend=0))
        _add(sound, start_s + half * beat_s, 0.7 * _tone(chord[0] - 24, 0.4, decay_s=0.25, num_harmonics=6))
    for place, note in enumerate(chord):
        _add(
            sound,
            start_s + 0.012 * place,
            0.35 * np.tanh(3 * _tone(note, 0.6, decay_s=0.4, num_harmonics=12)),
        )


def _club(sound: Sound, random: np.random.Generator, beat: int, beat_s: float, chord: tuple[int, ...]) -> None:
    start_s = beat * beat_s
    _add(sound, start_s, 1.2 * _kick())
    _add(sound, start_s + beat_s / 2, 0.3 * np.diff(_noise(random, 0.1, 0.03), prepend=0))
    _add(sound, start_s + beat_s / 2, 0.6 * _tone(chord[0] - 24, 0.2, decay_s=0.3, num_harmonics=20))
    for sixteenth in range(4):
        note = chord[int(random.integers(3))] + 12 * int(random.integers(3))
        _add(sound, start_s + sixteenth * beat_s / 4, 0.3 * _tone(note, 0.15, decay_s=0.08, num_harmonics=20))


def _add(sound: Sound, start_s: float, note: Sound) -> None:
    start = round(start_s * RATE_HZ)
    stop = min(start + note.size, sound.size)
    if start < stop:
        sound[start:stop] += note[: stop - start]


def _tone(
    note: int,
    duration_s: float,
    *,
    decay_s: float,
    num_harmonics: int,
    attack_s: float = 0.005,
    vibrato: float = 0.0,
) -> Sound:
    """Sum decaying harmonics of 1/n amplitude, the high ones decaying faster."""
    time_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    pitch_hz = 440 * 2 ** ((note - 69) / 12)
    phase = 2 * np.pi * pitch_hz * (time_s - vibrato * np.cos(2 * np.pi * 5.5 * time_s) / (2 * np.pi * 5.5))
    fade = np.minimum(1, time_s / attack_s) * np.minimum(1, (duration_s - time_s) / 0.02)
    harmonics = (n for n in range(1, num_harmonics + 1) if n * pitch_hz < 0.45 * RATE_HZ)
    waves = [np.sin(n * phase) * np.exp(-time_s * (1 + 0.1 * n) / decay_s) / n for n in harmonics]
    return fade * np.sum(waves, axis=0)


def _kick() -> Sound:
    time_s = np.arange(round(0.25 * RATE_HZ)) / RATE_HZ
    return np.sin(2 * np.pi * (50 * time_s - 5 * np.exp(-time_s * 25))) * np.exp(-time_s * 14)


def _noise(random: np.random.Generator, duration_s: float, decay_s: float) -> Sound:
    num_samples = round(duration_s * RATE_HZ)
    return random.standard_normal(num_samples) * np.exp(-np.arange(num_samples) / RATE_HZ / decay_s)
