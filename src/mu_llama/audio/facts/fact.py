"""What a measurement gives: a value, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass


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
    """What was measured of a track; None where there is too little sound, or nothing that fits."""

    duration_s: float
    """Length of the whole track in seconds, counted from its packets: what a header states can be wrong."""
    tempo_bpm: Fact | None
    """Beats per minute."""
    key: Fact | None
    """Tonic and mode."""
    loudness_lufs: Fact | None
    """Integrated loudness, ITU-R BS.1770."""
