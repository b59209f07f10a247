"""Tempo from the autocorrelation of the onset envelope, and whether there is a steady pulse at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from mu_llama.audio.facts.fact import NUM_PARTS, Fact, confidence, ramp
from mu_llama.audio.waveform import Samples

_HOP = 512
_TEMPI = np.exp(np.arange(np.log(45), np.log(215), 0.005))
_USUAL_TEMPO, _TEMPO_OCTAVES = 115.0, 1.3
_USUAL = np.exp(-0.5 * (np.log2(_TEMPI / _USUAL_TEMPO) / _TEMPO_OCTAVES) ** 2)
_NUM_PULSES = 8
_LONGEST_LAG_S = 14.0
_OCTAVES = (-2, -1, 0, 1, 2)
_SAME_TEMPO_OCTAVES = 0.07
_TEMPO_TOLERANCE = 0.04

_MIN_ONSETS = 8
"""Onsets are limited to the height of the eighth strongest, because a pulse of fewer onsets may be chance."""
_NUM_SHUFFLES, _SHUFFLED_FRAMES, _SHUFFLE_QUANTILE = 20, 8, 0.95
"""How chance is estimated: random orders, frames of a piece that is moved, quantile of their fits."""
# Each pair below: the value at which the evidence for a tempo is 0, and the one from which on it is 1.
_CHANCE, _BEYOND_CHANCE = 1.5, 3.0
"""Fit of the pulse divided by the fit of shuffled onsets."""
_UNSTEADY, _STEADY = 0.07, 0.2
"""Mean autocorrelation at the first eight multiples of the pulse; it is low in rubato, whose pulse drifts."""
_VIBRATO_BINS = 3
"""Width in mel bins of the maximum filter that suppresses vibrato: S. Böck and G. Widmer, Maximum Filter Vibrato
Suppression for Onset Detection, DAFx 2013."""
_NO_ONSET_DB, _ONSET_DB = 0.12, 0.2
"""Mean rise of the mel bands at an onset in dB: vibrato and steady noise are below the first value, softly bowed notes
above the second."""


def measure_tempo(librosa: Any, samples: Samples, rate_hz: int) -> Fact | None:
    """Return the tempo of the whole, or None where there is no steady pulse.

    The confidence is high if onsets repeat far better than shuffled ones, if no tempo but its half and double fits as
    well, and if parts of the track have the same tempo.

    Args:
        librosa: the library.
        samples: mono, of shape (S,).
        rate_hz: their rate.
    """
    bands = librosa.power_to_db(librosa.feature.melspectrogram(y=samples, sr=rate_hz, hop_length=_HOP))
    onsets = librosa.onset.onset_strength(S=bands, sr=rate_hz, hop_length=_HOP)
    steady = librosa.onset.onset_strength(S=bands, sr=rate_hz, hop_length=_HOP, max_size=_VIBRATO_BINS)
    frames_hz = rate_hz / _HOP
    fit = _fit(_repetition(librosa, onsets, frames_hz))
    best = int(np.argmax(fit))
    evidence = _evidence(librosa, onsets, steady, frames_hz, best)
    if evidence <= 0:
        return None
    tempo = float(_TEMPI[best])
    octaves = np.abs(np.log2(_TEMPI / tempo)[:, None] - np.array(_OCTAVES)).min(axis=1)
    margin = 1 - float(fit[octaves > _SAME_TEMPO_OCTAVES].max(initial=0)) / max(float(fit[best]), 1e-9)
    parts = [_fit(_repetition(librosa, part, frames_hz)) for part in np.array_split(onsets, NUM_PARTS)]
    agreeing = sum(part.max() > 0 and _same_up_to_octave(_TEMPI[int(np.argmax(part))], tempo) for part in parts)
    return Fact(
        round(tempo, 1),
        confidence(0.6 + margin, agreeing / NUM_PARTS, evidence),
        "autocorrelation of onsets (librosa)",
        (round(tempo / 2, 1), round(tempo * 2, 1)),
    )


def _evidence(librosa: Any, onsets: Samples, steady: Samples, frames_hz: float, best: int) -> float:
    """From 0 to 1: whether there are enough clear onsets that repeat more than shuffled ones."""
    rises = _peaks(_levelled(steady)) - np.median(steady)
    rises = np.maximum(rises, 0)
    onset_db = float((rises**2).sum() / max(float(rises.sum()), 1e-9))
    if onset_db <= _NO_ONSET_DB:
        return 0.0
    levelled = _levelled(onsets)
    repetition = _repetition(librosa, levelled, frames_hz)
    by_chance = np.quantile(_shuffled_fits(librosa, levelled, frames_hz), _SHUFFLE_QUANTILE)
    times_chance = float(_fit(repetition)[best]) / max(float(by_chance), 1e-9)
    return (
        ramp(onset_db, _NO_ONSET_DB, _ONSET_DB)
        * ramp(times_chance, _CHANCE, _BEYOND_CHANCE)
        * ramp(float(repetition[best]), _UNSTEADY, _STEADY)
    )


def _levelled(onsets: Samples) -> Samples:
    """Limit an onset envelope to its `_MIN_ONSETS`-th highest peak; it is 0 where there are fewer peaks."""
    peaks = np.sort(_peaks(onsets))
    limit = peaks[-_MIN_ONSETS] if peaks.size >= _MIN_ONSETS else 0.0
    cut: Samples = np.minimum(onsets, limit)
    return cut


def _peaks(onsets: Samples) -> Samples:
    """Heights of the local maxima of an onset envelope."""
    padded = np.pad(onsets, 1, constant_values=-1)
    peaks: Samples = onsets[(onsets > 0) & (onsets > padded[:-2]) & (onsets >= padded[2:])]
    return peaks


def _shuffled_fits(librosa: Any, onsets: Samples, frames_hz: float) -> list[float]:
    """Fits of the best tempo to the envelope with pieces, shorter than any beat, in random order."""
    pieces = onsets[: onsets.size // _SHUFFLED_FRAMES * _SHUFFLED_FRAMES].reshape(-1, _SHUFFLED_FRAMES)
    order = np.random.default_rng(0)
    shuffled = (order.permutation(pieces).ravel() for _ in range(_NUM_SHUFFLES))
    return [float(_fit(_repetition(librosa, onsets, frames_hz)).max()) for onsets in shuffled]


def _fit(repetition: Samples) -> Samples:
    """Fit of each of `_TEMPI`: autocorrelation of the onsets, times the prior of the tempo."""
    fit: Samples = np.maximum(repetition, 0) * _USUAL
    return fit


def _repetition(librosa: Any, onsets: Samples, frames_hz: float) -> Samples:
    """Mean autocorrelation, at most 1, at the first eight pulses of each of `_TEMPI`."""
    size = min(onsets.size, int(_LONGEST_LAG_S * frames_hz))
    pulse = librosa.autocorrelate(onsets - onsets.mean(), max_size=size)
    lags = 60 * frames_hz / _TEMPI[:, None] * np.arange(1, _NUM_PULSES + 1)  # frames, (tempi, pulses)
    repetition: Samples = np.interp(lags, np.arange(size), pulse / max(float(pulse[0]), 1e-9), right=0.0).mean(axis=1)
    return repetition


def _same_up_to_octave(one: float, other: float) -> bool:
    return any(abs(one - other * factor) <= _TEMPO_TOLERANCE * other * factor for factor in (0.5, 1.0, 2.0))
