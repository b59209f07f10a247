"""From the windows of one track to its features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import AudioError

if TYPE_CHECKING:
    from mu_llama.audio.windows import Weighting, Window


@dataclass(frozen=True, eq=False)
class TrackFeatures:
    """The features of one track."""

    values: npt.NDArray[np.float32]
    """Float32 of shape (L, D): the mean over the windows."""
    spans: tuple[tuple[float, float], ...]
    """The windows as (start_s, end_s), in the order in which they were encoded."""
    duration_s: float
    """Length of the track in seconds, encoded or not."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Small facts to keep beside the vectors; anything that JSON can hold."""


def encode_track(
    encoder: Encoder,
    windows: Iterable[Window],
    *,
    weighting: Weighting = "duration",
    duration_s: float | None = None,
) -> TrackFeatures:
    """Encode windows one after the other and average them, holding one window at a time.

    Args:
        encoder: gives (L, D) per window.
        windows: the windows to encode, at the encoder's rate; may be a generator.
        weighting: `duration` lets a window count by its length, `equal` is the published system's way.
        duration_s: length of the track, if known; otherwise the end of its last window stands for it.

    Returns:
        The weighted mean, of shape (L, D); for a single window exactly what the encoder gave.

    Raises:
        AudioError: if there are no windows, or the encoder refuses one.
    """
    total: npt.NDArray[np.float64] | None = None
    total_weight = 0.0
    spans: list[tuple[float, float]] = []
    for window in windows:
        weight = window.end_s - window.start_s if weighting == "duration" else 1.0
        weighted = np.asarray(encoder.encode(window.waveform), np.float64) * weight  # (L, D)
        total = weighted if total is None else total + weighted
        total_weight += weight
        spans.append((window.start_s, window.end_s))
        # The generator makes the next window while this name would still hold the last one.
        del window
    if total is None:
        raise AudioError("there are no windows to encode; expected at least one: check offset and duration")
    return TrackFeatures(
        values=(total / total_weight).astype(np.float32),
        spans=tuple(spans),
        duration_s=max(end_s for _, end_s in spans) if duration_s is None else duration_s,
    )
