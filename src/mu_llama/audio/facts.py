"""Measured facts: tempo, key, loudness, duration, each with a confidence; the only door to librosa and pyloudnorm."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mu_llama.audio.read import open_audio, read_audio
from mu_llama.audio.resample import ResampleStream
from mu_llama.audio.source import AudioSource
from mu_llama.audio.waveform import Waveform
from mu_llama.errors import ConfigError

_RATE_HZ = 22050
_MOST_SECONDS = 180.0
_NUM_PARTS = 4
_LEAST_SECONDS = 4.0
_TEMPO_TOLERANCE = 0.04
_KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
# Probe-tone ratings: C. L. Krumhansl, Cognitive Foundations of Musical Pitch, 1990, p. 30.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)

Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fact:
    """One measured value."""

    value: float | str
    """A number, or a key like `A minor`."""
    confidence: float
    """From 0 to 1; how far parts of the track agree on it."""
    method: str
    """How it was measured."""
    alternatives: tuple[float, ...] = ()
    """Values that fit nearly as well: of a tempo its half and double."""


@dataclass(frozen=True)
class Facts:
    """What was measured of a track; None where there is too little sound."""

    duration_s: float
    """Length in seconds, of what was measured where the file doesn't state its own."""
    tempo_bpm: Fact | None
    """Beats per minute."""
    key: Fact | None
    """Tonic and mode."""
    loudness_lufs: Fact | None
    """Integrated loudness, ITU-R BS.1770."""


def measure_facts(audio: AudioSource | Waveform, *, offset_s: float = 0.0, duration_s: float | None = None) -> Facts:
    """Measure up to three minutes of a track.

    Args:
        audio: path, bytes, binary file or waveform.
        offset_s: where measuring starts.
        duration_s: how much is measured; None is up to the end, and three minutes at most.

    Raises:
        AudioError: if it can't be heard.
        ConfigError: if librosa or pyloudnorm isn't installed.
    """
    librosa, pyloudnorm = _libraries()
    wave, length_s = _read(audio, offset_s, duration_s)
    samples = wave.samples
    if wave.duration_s < _LEAST_SECONDS or float(np.abs(samples).max()) < 1e-4:
        return Facts(length_s, None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loudness = float(pyloudnorm.Meter(_RATE_HZ).integrated_loudness(samples.astype(np.float64)))
    level = Fact(round(loudness, 1), 1.0, "ITU-R BS.1770 (pyloudnorm)") if np.isfinite(loudness) else None
    return Facts(length_s, _tempo(librosa, samples), _key(librosa, samples), level)


def _read(audio: AudioSource | Waveform, offset_s: float, duration_s: float | None) -> tuple[Waveform, float]:
    """The sound to measure, and the length of the whole: stated by the file, else as far as it was read."""
    if isinstance(audio, Waveform):
        first = round(offset_s * audio.rate_hz)
        last = None if duration_s is None else first + round(duration_s * audio.rate_hz)
        converter = ResampleStream(audio.rate_hz, _RATE_HZ)
        samples = np.concatenate([converter.feed(audio.samples[None, first:last]), converter.finish()], axis=1)[0]
        return Waveform(samples[: round(_MOST_SECONDS * _RATE_HZ)], _RATE_HZ), audio.duration_s
    with open_audio(audio) as stream:
        declared_s = stream.declared_s
    most_s = _MOST_SECONDS if duration_s is None else min(duration_s, _MOST_SECONDS)
    wave = read_audio(audio, rate_hz=_RATE_HZ, offset_s=offset_s, duration_s=most_s)
    return wave, wave.duration_s if declared_s is None else declared_s


def _tempo(librosa: Any, samples: Numbers) -> Fact | None:
    """The tempo of the whole, and how many parts have it too, up to an octave."""
    onsets = librosa.onset.onset_strength(y=samples, sr=_RATE_HZ)
    if float(onsets.max(initial=0)) <= 0:
        return None
    whole = _tempo_of(librosa, onsets)
    parts = [_tempo_of(librosa, part) for part in np.array_split(onsets, _NUM_PARTS)]
    agreeing = sum(_same_up_to_octave(part, whole) for part in parts) / _NUM_PARTS
    pulse = librosa.autocorrelate(onsets - onsets.mean(), max_size=onsets.size // 2)
    lag = round(60 * _RATE_HZ / (512 * whole))
    near = pulse[max(1, lag - 2) : lag + 3]
    strength = float(np.clip(near.max(initial=0) / max(pulse[0], 1e-9) * 2, 0, 1))
    confidence = agreeing * (0.5 + 0.5 * strength)
    return Fact(
        round(whole, 1),
        round(confidence, 2),
        "autocorrelation of onsets (librosa)",
        (round(whole / 2, 1), round(whole * 2, 1)),
    )


def _tempo_of(librosa: Any, onsets: Numbers) -> float:
    """Tempo of an onset envelope, its autocorrelation peak refined by a parabola."""
    rough = float(librosa.feature.tempo(onset_envelope=onsets, sr=_RATE_HZ, ac_size=8.0)[0])
    pulse = librosa.autocorrelate(onsets - onsets.mean(), max_size=min(onsets.size, 1000))
    lag = round(60 * _RATE_HZ / (512 * rough))
    if not 2 <= lag < pulse.size - 2:
        return rough
    lag = lag - 1 + int(np.argmax(pulse[lag - 1 : lag + 2]))
    before, at, after = pulse[lag - 1], pulse[lag], pulse[lag + 1]
    bend = before - 2 * at + after
    shift = 0.0 if abs(bend) < 1e-9 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
    return 60 * _RATE_HZ / (512 * (lag + shift))


def _same_up_to_octave(one: float, other: float) -> bool:
    return any(abs(one - other * factor) <= _TEMPO_TOLERANCE * other * factor for factor in (0.5, 1.0, 2.0))


def _key(librosa: Any, samples: Numbers) -> Fact | None:
    """The key of the whole, and how many parts have it too."""
    chroma = librosa.feature.chroma_cqt(y=librosa.effects.harmonic(samples), sr=_RATE_HZ)
    if float(chroma.max(initial=0)) <= 0:
        return None
    whole, margin = _best_key(chroma.mean(axis=1))
    parts = Counter(_best_key(part.mean(axis=1))[0] for part in np.array_split(chroma, _NUM_PARTS, axis=1))
    confidence = parts[whole] / _NUM_PARTS * min(1.0, 0.5 + margin * 4)
    return Fact(whole, round(confidence, 2), "chroma against key profiles (librosa, Krumhansl)")


def _best_key(chroma: Numbers) -> tuple[str, float]:
    """The key whose profile correlates most with a mean chroma, and by how much more than the second."""
    scores = {
        f"{name} {mode}": float(np.corrcoef(chroma, np.roll(profile, index))[0, 1])
        for mode, profile in (("major", _MAJOR), ("minor", _MINOR))
        for index, name in enumerate(_KEYS)
    }
    (best, high), (_, second) = sorted(scores.items(), key=lambda item: -item[1])[:2]
    return best, high - second


def _libraries() -> tuple[Any, Any]:
    try:
        import librosa
        import pyloudnorm
    except ImportError as error:
        raise ConfigError("measuring facts needs librosa and pyloudnorm; run: pip install 'mu-llama[facts]'") from error
    return librosa, pyloudnorm
