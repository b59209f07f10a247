"""Key from the mean chroma, and whether there are notes that a key could be the key of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mu_llama.audio.facts.fact import NUM_PARTS, Fact, confidence, ramp
from mu_llama.audio.facts.libraries import Libraries
from mu_llama.audio.waveform import Samples

_HOP = 512
_KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
# Key profiles: J. Albrecht and D. Shanahan, The Use of Large Corpora to Train a New Type of Key-Finding Algorithm,
# Music Perception 31 (2013).
_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)

_WINDOW = 4096
_LOWEST_HZ, _HIGHEST_HZ = 100.0, 2500.0
_FLOOR_BINS = 41
"""Width of the median filter that estimates the noise floor, in frequency bins."""
_MIN_AMPLITUDE = 1e-5
"""Amplitude of a sine below which it is taken for rounding error; full scale is 1."""
_MIN_HEIGHT, _MAX_HEIGHT = 1.2, 6.0
"""Height of a spectral peak above the median around it, in nepers: lower peaks are taken for noise and ignored; the
weight of a peak is its height, limited to the maximum."""
_SAME_PITCH_OCTAVES = 25 / 1200
"""Largest distance of two peaks of the same pitch: 25 cents."""
# Each pair below: the value at which the evidence for a key is 0, and the one from which on it is 1.
_TUNED = (0.05, 0.15)
"""Share of the peaks' weight in lasting tones on a semitone grid: speech and noise are below the first value, music
above the second."""
_PITCH_CLASSES = (2.5, 3.5)
"""Effective number of pitch classes: clicks and single tones are below the first value, melodies above the second."""
_CHANGES, _SLOW_CHANGES = (1.06, 1.12), (1.01, 1.04)
"""Effective number of independent mixtures of pitch classes over time, in single windows and in sums over a second. A
drone has one, whatever its overtones; a tone with vibrato has one in sums over a second."""
_LASTING_S = (1.0, 3.0)
"""Seconds in which there are lasting tones."""


@dataclass(frozen=True)
class _Tones:
    """Statistics of the lasting tones of a track, see the constants above."""

    tuned: float = 0.0
    pitch_classes: float = 0.0
    changes: float = 1.0
    slow_changes: float = 1.0
    lasting_s: float = 0.0

    @property
    def evidence(self) -> float:
        """From 0 to 1: how clearly the tones are notes of music in a key."""
        return (
            ramp(self.tuned, *_TUNED)
            * ramp(self.pitch_classes, *_PITCH_CLASSES)
            * ramp(self.changes, *_CHANGES)
            * ramp(self.slow_changes, *_SLOW_CHANGES)
            * ramp(self.lasting_s, *_LASTING_S)
        )


def measure_key(libraries: Libraries, samples: Samples, rate_hz: int) -> Fact | None:
    """Return the key of the whole, or None where there are no notes.

    The confidence is high if the key fits clearly better than all others, parts of the track have it too, and there are
    different notes that last.

    Args:
        libraries: librosa and SciPy.
        samples: mono, of shape (S,).
        rate_hz: their rate.
    """
    evidence = _tones(libraries, samples, rate_hz).evidence
    if evidence <= 0:
        return None
    chroma = libraries.librosa.feature.chroma_cqt(y=samples, sr=rate_hz, hop_length=_HOP)
    whole, margin = _best_key(chroma.mean(axis=1))
    parts = [_best_key(part.mean(axis=1))[0] for part in np.array_split(chroma, NUM_PARTS, axis=1)]
    return Fact(
        whole,
        confidence(0.45 + 2.5 * margin, parts.count(whole) / NUM_PARTS, evidence),
        "chroma against key profiles (librosa, Albrecht and Shanahan)",
    )


def _best_key(chroma: Samples) -> tuple[str, float]:
    """The key whose profile correlates most with a mean chroma, and by how much more than the second."""
    scores = {
        f"{name} {mode}": float(np.corrcoef(chroma, np.roll(profile, index))[0, 1])
        for mode, profile in (("major", _MAJOR), ("minor", _MINOR))
        for index, name in enumerate(_KEYS)
    }
    (best, high), (_, second) = sorted(scores.items(), key=lambda item: -item[1])[:2]
    return best, high - second


def _tones(libraries: Libraries, samples: Samples, rate_hz: int) -> _Tones:
    """Describe the spectral peaks that last longer than a window."""
    frames, pitches, weights = _spectral_peaks(libraries, samples, rate_hz)
    lasting = _lasting(frames, pitches)
    total = float(weights.sum())
    frames, pitches, weights = frames[lasting], pitches[lasting], weights[lasting]
    if weights.size == 0:
        return _Tones()
    # The angle is how far a pitch is from a semitone of a piano; the mean angle is the tuning.
    tuning = complex((weights * np.exp(2j * np.pi * 12 * pitches)).sum())
    semitones = np.round(12 * pitches - np.angle(tuning) / (2 * np.pi)).astype(int)
    mixtures = np.zeros((12, int(frames.max()) + 1))
    np.add.at(mixtures, (semitones % 12, frames), weights)
    frames_hz = rate_hz / (_WINDOW / 2)
    return _Tones(
        tuned=abs(tuning) / total,
        pitch_classes=_effective_number(mixtures.sum(axis=1)),
        changes=_num_mixtures(mixtures),
        slow_changes=_num_mixtures(_means(mixtures, round(frames_hz))),
        lasting_s=int(mixtures.any(axis=0).sum()) / frames_hz,
    )


def _means(mixtures: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Mixtures (12, frames) added up over windows of that many frames, each half a window after the last."""
    starts = range(0, max(1, mixtures.shape[1] - size + 1), size // 2)
    return np.stack([mixtures[:, start : start + size].sum(axis=1) for start in starts], axis=1)


def _num_mixtures(mixtures: npt.NDArray[np.float64]) -> float:
    """Effective number of independent columns of mixtures (12, frames), each scaled to length 1."""
    mixtures = mixtures[:, mixtures.any(axis=0)]
    if mixtures.size == 0:
        return 1.0
    mixtures = mixtures / np.linalg.norm(mixtures, axis=0)
    return _effective_number(np.asarray(np.linalg.eigvalsh(mixtures @ mixtures.T), np.float64))


def _effective_number(amounts: npt.NDArray[np.float64]) -> float:
    """Participation ratio: the number of amounts, each weighted by its share."""
    return float(amounts.sum() ** 2 / max(float((amounts**2).sum()), 1e-12))


def _spectral_peaks(
    libraries: Libraries, samples: Samples, rate_hz: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Frame, pitch in octaves above 440 Hz, and weight of each peak that rises above its surroundings, by frame."""
    first, last = (int(edge * _WINDOW / rate_hz) for edge in (_LOWEST_HZ, _HIGHEST_HZ))
    spectrum = np.abs(libraries.librosa.stft(samples, n_fft=_WINDOW, hop_length=_WINDOW // 2))
    level = np.log(spectrum[first - 1 : last + 1].T + _MIN_AMPLITUDE * _WINDOW / 4)  # (frames, bins)
    height = level - _medians(libraries, level)
    left, middle, right = level[:, :-2], level[:, 1:-1], level[:, 2:]
    frames, bins = np.nonzero((middle > left) & (middle >= right) & (height[:, 1:-1] > _MIN_HEIGHT))
    low, mid, high = (side[frames, bins].astype(np.float64) for side in (left, middle, right))
    offset = 0.5 * (low - high) / (low - 2 * mid + high - 1e-12)  # top of a parabola through three bins
    pitches = np.log2((bins + first + offset) * rate_hz / _WINDOW / 440.0)
    weights = np.minimum(height[:, 1:-1][frames, bins], _MAX_HEIGHT).astype(np.float64)
    return frames, pitches, weights


def _medians(libraries: Libraries, level: Samples) -> Samples:
    """Median of the bins around each one; rows are strung together, for which SciPy is ten times faster."""
    margin = _FLOOR_BINS // 2
    padded = np.pad(level, ((0, 0), (margin, margin)), mode="symmetric")
    medians: Samples = libraries.ndimage.median_filter(padded.ravel(), size=_FLOOR_BINS).reshape(padded.shape)
    return medians[:, margin:-margin]


def _lasting(frames: npt.NDArray[np.int64], pitches: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether each peak has one of the same pitch in the next window that doesn't overlap its own."""
    lasting = np.zeros(frames.size, dtype=bool)
    bounds = np.searchsorted(frames, np.arange(int(frames.max(initial=0)) + 4))
    for frame in range(len(bounds) - 3):
        own = slice(bounds[frame], bounds[frame + 1])
        later = pitches[bounds[frame + 2] : bounds[frame + 3]]
        if later.size:
            lasting[own] = np.abs(pitches[own, None] - later).min(axis=1) < _SAME_PITCH_OCTAVES
    return lasting
