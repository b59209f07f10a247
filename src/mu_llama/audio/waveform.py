"""A validated stretch of mono sound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mu_llama.audio.downmix import Samples as Samples
from mu_llama.audio.downmix import mix_down
from mu_llama.errors import AudioError

MAX_CHANNELS = 8
"""An array of two dimensions holds channels where one of them is no longer than this, ..."""
MIN_SAMPLES_PER_CHANNEL = 100
"""... and the other this many times longer."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """Mono samples at a known rate.

    Args:
        samples: array or tensor of shape (S,), finite, not empty: floats, nominally in [-1, 1], or integers of 8, 16 or
            32 bits, whose full scale becomes 1. Channels, (C, S) or (S, C), become one (see `audio.downmix`).
        rate_hz: samples per second, a positive whole number.

    Raises:
        AudioError: if any of the above doesn't hold.

    Example:
        >>> import numpy as np
        >>> Waveform(np.zeros(8000, dtype=np.float32), 16000).duration_s
        0.5
        >>> Waveform(np.full((500, 2), -(2**15), dtype=np.int16), 16000.0).samples[:2]
        array([-1., -1.], dtype=float32)
    """

    samples: Samples
    """Float32, (S,)."""
    rate_hz: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_hz", _whole_rate(self.rate_hz))
        samples = _floats(_array(self.samples))
        if samples.ndim == 2:
            samples = _one_channel(samples, self.rate_hz)
        if samples.ndim != 1:
            raise AudioError(f"samples have shape {samples.shape}; expected (S,): average the channels first")
        if samples.size == 0:
            raise AudioError("there are 0 samples; expected at least one: check offset and duration")
        if not np.isfinite(samples).all():
            raise AudioError("samples hold NaN or infinity; expected finite numbers: re-export the audio")
        object.__setattr__(self, "samples", samples)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.rate_hz


def _whole_rate(rate_hz: Any) -> int:
    try:
        rate = float("nan") if isinstance(rate_hz, (str, bytes, bool, np.bool_)) else float(rate_hz)
    except (TypeError, ValueError, OverflowError):
        rate = float("nan")
    if not (math.isfinite(rate) and rate > 0 and rate.is_integer()):
        raise AudioError(f"rate_hz is {rate_hz!r}; expected a positive whole number of samples per second, e.g. 44100")
    return int(rate)


def _array(samples: Any) -> npt.NDArray[Any]:
    """Turn an array or a tensor of any library into a numpy array, without copying where that's possible."""
    if not hasattr(samples, "__array__"):
        raise AudioError(f"samples are {type(samples).__name__}; expected an array: convert with np.asarray(...)")
    if callable(getattr(samples, "detach", None)):  # a tensor, perhaps on a GPU or of a type that numpy lacks
        samples = samples.detach().cpu()
        samples = samples.float() if samples.is_floating_point() else samples
    return np.asarray(samples)


def _floats(samples: npt.NDArray[Any]) -> Samples:
    """Scale integers to [-1, 1) by a power of two; floats keep their scale."""
    kind, size = samples.dtype.kind, samples.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    if kind == "i" and size <= 4:
        return samples.astype(np.float32) * np.float32(2.0 ** (1 - 8 * size))
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - np.float32(128)) * np.float32(2**-7)
    raise AudioError(
        f"samples are {samples.dtype}, whose full scale isn't known; expected floats in [-1, 1] or integers of 8, 16 "
        "or 32 bits: scale them and convert with .astype('float32')"
    )


def _one_channel(samples: Samples, rate_hz: int) -> Samples:
    num_channels, num_samples = sorted(samples.shape)
    if num_channels == 1:
        return samples.reshape(-1)
    if 0 < num_channels <= MAX_CHANNELS and num_samples >= MIN_SAMPLES_PER_CHANNEL * num_channels:
        return mix_down(samples if samples.shape[0] == num_channels else samples.T, rate_hz=rate_hz)
    raise AudioError(
        f"samples have shape {samples.shape}, and which of the two counts channels isn't clear; expected (S,): average "
        "the channels first"
    )
