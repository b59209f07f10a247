"""Measured facts: tempo, key, loudness, duration, each with a confidence; the only door to librosa and pyloudnorm."""

from __future__ import annotations

import warnings
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
_MOST_CHANNELS = 5
_LEAST_SECONDS = 4.0
_TEMPO_TOLERANCE = 0.04
_KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
# Key profiles: J. Albrecht and D. Shanahan, The Use of Large Corpora to Train a New Type of Key-Finding Algorithm,
# Music Perception 31 (2013).
_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
_HOP = 512
_TEMPI = np.exp(np.arange(np.log(45), np.log(215), 0.005))
_USUAL_TEMPO, _TEMPO_OCTAVES = 115.0, 1.3
_NUM_PULSES = 8
_LONGEST_LAG_S = 14.0
_OCTAVES = (-2, -1, 0, 1, 2)
_SAME_TEMPO_OCTAVES = 0.07

Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fact:
    """One measured value."""

    value: float | str
    """A number, or a key like `A minor`."""
    confidence: float
    """From 0 to 1: how clear it is, and how far parts of the track agree; from 0.8 on, trust it."""
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
    level = _loudness(pyloudnorm, audio, offset_s, duration_s)
    return Facts(length_s, _tempo(librosa, samples), _key(librosa, samples), level)


def _loudness(pyloudnorm: Any, audio: AudioSource | Waveform, offset_s: float, duration_s: float | None) -> Fact | None:
    """Integrated loudness of all channels at their own rate, as the standard has it."""
    most_s = _MOST_SECONDS if duration_s is None else min(duration_s, _MOST_SECONDS)
    if isinstance(audio, Waveform):
        first = round(offset_s * audio.rate_hz)
        channels, rate_hz = audio.samples[None, first : first + round(most_s * audio.rate_hz)], audio.rate_hz
    else:
        with open_audio(audio, offset_s=offset_s, duration_s=most_s) as stream:
            channels, rate_hz = np.concatenate(list(stream), axis=1), stream.rate_hz
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = channels[:_MOST_CHANNELS].T.astype(np.float64)
        loudness = float(pyloudnorm.Meter(rate_hz).integrated_loudness(samples))
    return Fact(round(loudness, 1), 1.0, "ITU-R BS.1770 (pyloudnorm)") if np.isfinite(loudness) else None


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
    """The tempo of the whole; sure if nothing but its octaves fits as well, and parts have it too."""
    onsets = librosa.onset.onset_strength(y=samples, sr=_RATE_HZ, hop_length=_HOP)
    if float(onsets.max(initial=0)) <= 0:
        return None
    fit = _tempo_fit(librosa, onsets)
    best = int(np.argmax(fit))
    tempo = float(_TEMPI[best])
    octaves = np.abs(np.log2(_TEMPI / tempo)[:, None] - np.array(_OCTAVES)).min(axis=1)
    margin = 1 - float(fit[octaves > _SAME_TEMPO_OCTAVES].max(initial=0)) / max(float(fit[best]), 1e-9)
    parts = [_TEMPI[int(np.argmax(_tempo_fit(librosa, part)))] for part in np.array_split(onsets, _NUM_PARTS)]
    agreeing = sum(_same_up_to_octave(part, tempo) for part in parts) / _NUM_PARTS
    return Fact(
        round(tempo, 1),
        _confidence(0.6 + margin, agreeing),
        "autocorrelation of onsets (librosa)",
        (round(tempo / 2, 1), round(tempo * 2, 1)),
    )


def _tempo_fit(librosa: Any, onsets: Numbers) -> Numbers:
    """How well each of `_TEMPI` fits: autocorrelation at its first eight pulses, times how usual it is."""
    size = min(onsets.size, int(_LONGEST_LAG_S * _RATE_HZ / _HOP))
    pulse = librosa.autocorrelate(onsets - onsets.mean(), max_size=size)
    lags = 60 * _RATE_HZ / _HOP / _TEMPI[:, None] * np.arange(1, _NUM_PULSES + 1)  # frames, (tempi, pulses)
    heard = np.interp(lags, np.arange(size), pulse / max(float(pulse[0]), 1e-9), right=0.0)
    usual = np.exp(-0.5 * (np.log2(_TEMPI / _USUAL_TEMPO) / _TEMPO_OCTAVES) ** 2)
    fit: Numbers = np.maximum(heard.mean(axis=1), 0) * usual
    return fit


def _same_up_to_octave(one: float, other: float) -> bool:
    return any(abs(one - other * factor) <= _TEMPO_TOLERANCE * other * factor for factor in (0.5, 1.0, 2.0))


def _confidence(clarity: float, agreeing: float) -> float:
    """From how clear the whole is and how many parts agree; benchmarks/facts.py scores those of 0.8 and above."""
    return round(min(1.0, clarity) * (0.7 + 0.3 * agreeing), 2)


def _key(librosa: Any, samples: Numbers) -> Fact | None:
    """The key of the whole; sure if it fits clearly better than all others, and parts have it too."""
    chroma = librosa.feature.chroma_cqt(y=samples, sr=_RATE_HZ, hop_length=_HOP)
    if float(chroma.max(initial=0)) <= 0:
        return None
    whole, margin = _best_key(chroma.mean(axis=1))
    parts = [_best_key(part.mean(axis=1))[0] for part in np.array_split(chroma, _NUM_PARTS, axis=1)]
    confidence = _confidence(0.45 + 2.5 * margin, parts.count(whole) / _NUM_PARTS)
    return Fact(whole, confidence, "chroma against key profiles (librosa, Albrecht and Shanahan)")


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
