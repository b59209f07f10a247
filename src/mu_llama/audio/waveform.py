"""A validated stretch of mono sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mu_llama.errors import AudioError

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Waveform:
    """Mono samples at a known rate.

    Args:
        samples: float32 array of shape (S,), nominally in [-1, 1], finite, not empty.
        rate_hz: samples per second, positive.

    Raises:
        AudioError: if any of the above doesn't hold.

    Example:
        >>> import numpy as np
        >>> Waveform(np.zeros(8000, dtype=np.float32), 16000).duration_s
        0.5
    """

    samples: Samples
    rate_hz: int

    def __post_init__(self) -> None:
        if not isinstance(self.samples, np.ndarray) or self.samples.dtype != np.float32:
            came = getattr(self.samples, "dtype", type(self.samples).__name__)
            raise AudioError(f"samples are {came}; expected a float32 numpy array: convert with .astype('float32')")
        if self.samples.ndim != 1:
            raise AudioError(f"samples have shape {self.samples.shape}; expected (S,): average the channels first")
        if self.samples.size == 0:
            raise AudioError("there are 0 samples; expected at least one: check offset and duration")
        if self.rate_hz <= 0:
            raise AudioError(f"rate_hz is {self.rate_hz}; expected a positive number of samples per second")
        if not np.isfinite(self.samples).all():
            raise AudioError("samples hold NaN or infinity; expected finite numbers: re-export the audio")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.rate_hz
