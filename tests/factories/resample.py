"""The published system's resampling of a whole waveform."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mu_llama.audio.resample import SincStream
from mu_llama.audio.waveform import Samples


def sinc_resample(samples: npt.NDArray[np.float32], from_hz: int, to_hz: int) -> Samples:
    """Resample as the published system does (see `SincStream`).

    Args:
        samples: float32 of shape (S,) or (C, S).
        from_hz: its rate.
        to_hz: the rate wanted.

    Returns:
        Float32 of shape (ceil(S * to_hz / from_hz),), or (C, the same).

    Example:
        >>> import numpy as np
        >>> sinc_resample(np.zeros(44101, dtype=np.float32), 44100, 24000).shape
        (24001,)
    """
    rows = samples.reshape(-1, samples.shape[-1])
    stream = SincStream(from_hz, to_hz, num_channels=rows.shape[0])
    out = np.concatenate([stream.feed(rows), stream.finish()], axis=1)
    return out[0] if samples.ndim == 1 else out
