"""Sample rate conversion: soxr, and the windowed sinc of the published system for equal numbers."""

from __future__ import annotations

import math

import numpy as np
import soxr

from mu_llama.audio.waveform import Samples

LOWPASS_FILTER_WIDTH = 6
"""Zero crossings of the sinc on each side."""
ROLLOFF = 0.99
"""Cut-off as a fraction of the lower Nyquist frequency."""
MIN_GROUP = 64
"""Output samples computed by one matrix product; a larger group wastes arithmetic, a smaller one calls."""
CHUNK_OUTPUTS = 2**17
"""Output samples per channel computed at a time, which bounds memory."""
KERNEL_CACHE_FLOATS = 2**23
"""Kernels of a ratio are cached only while all of them fit in this many numbers."""


def _num_outputs(num_inputs: int, from_hz: int, to_hz: int) -> int:
    return -(-num_inputs * to_hz // from_hz)


class ResampleStream:
    """soxr (quality HQ) over a stream of blocks, every channel alike.

    The result has exactly ceil(num_inputs * to_hz / from_hz) samples, however it was cut into blocks.

    Args:
        from_hz: rate of the blocks that come in.
        to_hz: rate of the blocks that go out; the same rate passes blocks through.
        num_channels: rows of each block.

    Example:
        >>> import numpy as np
        >>> stream = ResampleStream(48000, 24000)
        >>> first, last = stream.feed(np.zeros((1, 4801), dtype=np.float32)), stream.finish()
        >>> first.shape[1] + last.shape[1]
        2401
    """

    def __init__(self, from_hz: int, to_hz: int, *, num_channels: int = 1) -> None:
        self._from_hz, self._to_hz, self._num_channels = from_hz, to_hz, num_channels
        self._soxr = None
        if from_hz != to_hz:
            self._soxr = soxr.ResampleStream(from_hz, to_hz, num_channels, dtype="float32", quality="HQ")
        self._num_in = self._num_out = 0

    def feed(self, block: Samples) -> Samples:
        """Take a block (C, n) and return what is ready, of shape (C, m) with m from 0 up."""
        self._num_in += block.shape[1]
        if self._soxr is None:
            return block
        out = np.asarray(self._soxr.resample_chunk(np.ascontiguousarray(block.T))).T
        out = out[:, : _num_outputs(self._num_in, self._from_hz, self._to_hz) - self._num_out]
        self._num_out += out.shape[1]
        return out

    def finish(self) -> Samples:
        """Return the rest, of shape (C, m); nothing may be fed afterwards."""
        if self._soxr is None:
            return np.zeros((self._num_channels, 0), dtype=np.float32)
        tail = self._soxr.resample_chunk(np.zeros((0, self._num_channels), dtype=np.float32), last=True).T
        missing = _num_outputs(self._num_in, self._from_hz, self._to_hz) - self._num_out
        out = np.zeros((self._num_channels, missing), dtype=np.float32)
        out[:, : min(missing, tail.shape[1])] = tail[:, :missing]
        return out


class SincStream:
    """Windowed-sinc resampling of a stream of blocks, equal to torchaudio's `sinc_interp_hann`.

    With o and n the two rates divided by their greatest common divisor and b = min(o, n) * rolloff, output
    sample j*n + i is the sum over inputs k of x[k] * h(b * (k/o - j - i/n)), where
    h(t) = b/o * sinc(t) * cos(pi*t/12)^2 for |t| < 6 and 0 beyond; outside the signal x is 0
    (torchaudio.functional.resample, its documented formula; lowpass_filter_width 6, rolloff 0.99).
    Here the n phases are taken in groups, each group one small dense kernel applied to strided views of the
    input, so that neither common nor odd ratios build large tables.

    Args:
        from_hz: rate of the blocks that come in.
        to_hz: rate of the blocks that go out.
        num_channels: rows of each block.
    """

    def __init__(self, from_hz: int, to_hz: int, *, num_channels: int = 1) -> None:
        divisor = math.gcd(from_hz, to_hz)
        repeat = -(-MIN_GROUP // (to_hz // divisor))
        self._orig, self._new = from_hz // divisor * repeat, to_hz // divisor * repeat
        self._cutoff = min(from_hz, to_hz) * ROLLOFF / from_hz
        """b/o: cycles of the sinc per input sample."""
        self._width = math.ceil(LOWPASS_FILTER_WIDTH / self._cutoff)
        self._from_hz, self._to_hz = from_hz, to_hz
        self._pending = [np.zeros((num_channels, self._width), dtype=np.float32)]
        self._num_pending = self._width
        self._num_in = self._num_out = 0
        self._kernels: dict[int, Samples] = {}
        kernel_rows = MIN_GROUP * self._orig // self._new + 2 * self._width + 2
        self._keep_kernels = self._new * kernel_rows <= KERNEL_CACHE_FLOATS
        self._min_periods = max(1, CHUNK_OUTPUTS // 4 // self._new)

    def feed(self, block: Samples) -> Samples:
        """Take a block (C, n) and return what is ready, of shape (C, m) with m from 0 up."""
        self._num_in += block.shape[1]
        if self._from_hz == self._to_hz:
            return block
        self._pending.append(block)
        self._num_pending += block.shape[1]
        num_periods = (self._num_pending - 2 * self._width - 1) // self._orig
        if num_periods < self._min_periods:
            return np.zeros((block.shape[0], 0), dtype=np.float32)
        return self._convert(num_periods)

    def finish(self) -> Samples:
        """Return the rest, of shape (C, m); nothing may be fed afterwards."""
        num_channels = self._pending[0].shape[0]
        if self._from_hz == self._to_hz:
            return np.zeros((num_channels, 0), dtype=np.float32)
        missing = _num_outputs(self._num_in, self._from_hz, self._to_hz) - self._num_out
        num_periods = -(-missing // self._new)
        padding = num_periods * self._orig + 2 * self._width + 1 - self._num_pending
        self._pending.append(np.zeros((num_channels, max(0, padding)), dtype=np.float32))
        return self._convert(num_periods)[:, :missing]

    def _convert(self, num_periods: int) -> Samples:
        """Turn that many periods of `_orig` pending inputs into periods of `_new` outputs."""
        pending = np.concatenate(self._pending, axis=1)
        out = np.empty((pending.shape[0], num_periods * self._new), dtype=np.float32)
        step = max(1, CHUNK_OUTPUTS // self._new)
        for period in range(0, num_periods, step):
            last = min(num_periods, period + step)
            inputs = pending[:, period * self._orig : last * self._orig + 2 * self._width + 1]
            self._convert_chunk(inputs, out[:, period * self._new : last * self._new])
        rest = pending[:, num_periods * self._orig :].copy()
        self._pending, self._num_pending = [rest], rest.shape[1]
        self._num_out += out.shape[1]
        return out

    def _convert_chunk(self, inputs: Samples, out: Samples) -> None:
        num_channels, num_out = out.shape
        periods = out.reshape(num_channels, num_out // self._new, self._new)  # (C, periods, phases)
        for phase in range(0, self._new, MIN_GROUP):
            end = min(self._new, phase + MIN_GROUP)
            start, kernel = phase * self._orig // self._new, self._kernel(phase, end)
            views = np.lib.stride_tricks.sliding_window_view(inputs[:, start:], kernel.shape[0], axis=1)
            views = views[:, :: self._orig][:, : periods.shape[1]]  # (C, periods, taps)
            for channel in range(num_channels):
                periods[channel, :, phase:end] = views[channel] @ kernel

    def _kernel(self, phase: int, end: int) -> Samples:
        """Return the weights (taps, phases) of phases [phase, end); tap 0 is input phase*o//n - width."""
        if phase in self._kernels:
            return self._kernels[phase]
        start, stop = phase * self._orig // self._new, (end - 1) * self._orig // self._new + self._width + 2
        taps = np.arange(start - self._width, stop, dtype=np.float64)[:, None]
        centres = np.arange(phase, end, dtype=np.float64)[None, :] * self._orig / self._new
        t = np.clip((taps - centres) * self._cutoff, -LOWPASS_FILTER_WIDTH, LOWPASS_FILTER_WIDTH)
        window = np.cos(t * np.pi / LOWPASS_FILTER_WIDTH / 2) ** 2
        kernel: Samples = (np.sinc(t) * window * self._cutoff).astype(np.float32)
        if self._keep_kernels:
            self._kernels[phase] = kernel
        return kernel
