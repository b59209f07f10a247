"""Measured values of a track, each with a confidence, and how the confidence comes about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One measured value."""

    value: float | str
    """A number, or a key like `A minor`."""
    confidence: float
    """From 0 to 1: how clear it is, and how far parts of the track agree; values from 0.8 on count as sure."""
    method: str
    """How it was measured."""
    alternatives: tuple[float, ...] = ()
    """Values that fit nearly as well: of a tempo its half and double."""


@dataclass(frozen=True)
class Facts:
    """What was measured of a track; None where there is too little sound, or nothing that fits."""

    duration_s: float
    """Length of the whole track in seconds, counted from its packets: what a header states can be wrong."""
    tempo_bpm: Fact | None
    """Beats per minute."""
    key: Fact | None
    """Tonic and mode."""
    loudness_lufs: Fact | None
    """Integrated loudness, ITU-R BS.1770."""


NUM_PARTS = 4
"""Quarters of the track, each measured alone."""


def confidence(clarity: float, agreement: float, evidence: float) -> float:
    """Return a confidence from 0 to 1; benchmarks/facts.py scores values with 0.8 and above.

    Args:
        clarity: how clearly the value stands out from others; 1 and above is as clear as it gets.
        agreement: share of the parts that have the same value, from 0 to 1.
        evidence: how clearly the sound has a tempo or a key at all, from 0 to 1.
    """
    # Where most parts contradict the whole, its value may be chance.
    agreed = min(0.7 + 0.3 * agreement, 0.4 + 0.9 * agreement)
    return round(float(min(1.0, clarity) * agreed * evidence), 2)


def ramp(value: float, none_at: float, full_at: float) -> float:
    """Return 0 up to one value, 1 from another on, and interpolate linearly in between.

    Example:
        >>> ramp(3.0, 2.0, 4.0)
        0.5
    """
    return min(1.0, max(0.0, (value - none_at) / (full_at - none_at)))
