"""From how clear a value is, how far parts of the track agree and what it rests on, to one confidence."""

from __future__ import annotations

NUM_PARTS = 4
"""Quarters of the track, each measured alone."""


def confidence(clarity: float, agreement: float, evidence: float) -> float:
    """Return a confidence from 0 to 1; benchmarks/facts.py scores values with 0.8 and above.

    Args:
        clarity: how clearly the value stands out from others; 1 and above is as clear as it gets.
        agreement: share of the parts that have the same value, from 0 to 1.
        evidence: whether the sound has what such a value is a property of, from 0 to 1.
    """
    # Where most parts contradict the whole, its value may be chance.
    agreed = min(0.7 + 0.3 * agreement, 0.4 + 0.9 * agreement)
    return round(float(min(1.0, clarity) * agreed * evidence), 2)


def ramp(value: float, none_at: float, full_at: float) -> float:
    """Return 0 up to one value, 1 from another on, and in between what lies on a line.

    Example:
        >>> ramp(3.0, 2.0, 4.0)
        0.5
    """
    return min(1.0, max(0.0, (value - none_at) / (full_at - none_at)))
