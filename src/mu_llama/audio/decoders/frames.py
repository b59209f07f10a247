"""Turns FFmpeg's decoded frames into float32 blocks of one rate and one number of channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np

from mu_llama.audio.resample import ResampleStream
from mu_llama.audio.waveform import Samples
from mu_llama.errors import AudioError

BLOCK_SAMPLES = 2**15
"""Frames are gathered to blocks of at least this many samples per channel."""
MAX_CHANNELS = 64
"""More channels than any recording has."""
MIN_RATE_HZ, MAX_RATE_HZ = 1000, 768_000
"""Rates outside come from broken headers."""
MAX_PLANES = 7
"""PyAV counts a frame's planes up to a null pointer, which FFmpeg promises only up to here."""
_DTYPES = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}


def to_blocks(frames: Iterable[Any], *, rate_hz: int, num_channels: int) -> Iterator[Samples]:
    """Convert frames to blocks (C, n) of at least BLOCK_SAMPLES each, but for the last.

    A frame of another rate is resampled; one of another number of channels becomes their mean, in each.

    Args:
        frames: av.AudioFrame, each with samples.
        rate_hz: rate of the blocks.
        num_channels: C.
    """
    pending: list[Samples] = []
    size = 0
    for block in _uniform(frames, rate_hz=rate_hz, num_channels=num_channels):
        pending.append(block)
        size += block.shape[1]
        if size >= BLOCK_SAMPLES:
            yield np.concatenate(pending, axis=1)
            pending, size = [], 0
    if size:
        yield np.concatenate(pending, axis=1)


def _uniform(frames: Iterable[Any], *, rate_hz: int, num_channels: int) -> Iterator[Samples]:
    current_hz, converter = rate_hz, None
    packers: dict[tuple[str, str, int], Any] = {}
    for frame in frames:
        if frame.format.is_planar and frame.layout.nb_channels > MAX_PLANES:
            frame = _packed(frame, packers)
        block = _to_array(frame)
        if block.shape[0] != num_channels:
            block = np.repeat(block.mean(axis=0, keepdims=True), num_channels, axis=0)
        if frame.sample_rate != current_hz:
            if converter is not None:
                yield converter.finish()
            current_hz, converter = frame.sample_rate, None
            if not MIN_RATE_HZ <= current_hz <= MAX_RATE_HZ:
                raise AudioError(f"changes its sample rate to {current_hz} Hz, which is no real recording")
            if current_hz != rate_hz:
                converter = ResampleStream(current_hz, rate_hz, num_channels=num_channels)
        yield block if converter is None else converter.feed(block)
    if converter is not None:
        yield converter.finish()


def _to_array(frame: Any) -> Samples:
    """Copy a frame's samples to (C, n)."""
    num_channels, num_samples = frame.layout.nb_channels, frame.samples
    dtype: np.dtype[Any] = np.dtype(_DTYPES[frame.format.packed.name])
    if frame.format.is_planar:
        planes = frame.planes[:num_channels]
        return _to_float(np.stack([np.frombuffer(plane, dtype, num_samples) for plane in planes]))
    data = np.frombuffer(frame.planes[0], dtype, num_samples * num_channels)
    return _to_float(data.reshape(num_samples, num_channels).T)


def _packed(frame: Any, packers: dict[tuple[str, str, int], Any]) -> Any:
    """Interleave a planar frame; `packers` keeps one converter for each kind of frame."""
    kind = (frame.format.name, frame.layout.name, frame.sample_rate)
    if kind not in packers:
        packers[kind] = av.AudioResampler(format=frame.format.packed.name)
    frame.pts = None
    return packers[kind].resample(frame)[0]


def _to_float(data: np.ndarray[Any, Any]) -> Samples:
    """Scale integers to [-1, 1) by a power of two, which is exact for up to 24 bits."""
    if data.dtype == np.uint8:
        return (data.astype(np.float32, order="C") - np.float32(128)) * np.float32(2**-7)
    if data.dtype.kind == "i":
        return data.astype(np.float32, order="C") * np.float32(2.0 ** (1 - 8 * data.dtype.itemsize))
    with np.errstate(over="ignore"):
        return data.astype(np.float32, order="C")
