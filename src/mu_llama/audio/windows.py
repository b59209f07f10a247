"""Chooses which seconds of a track are heard, and yields them one window at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np

from mu_llama.audio.downmix import Downmix
from mu_llama.audio.read import AudioSource, check_range, open_audio, sample_at
from mu_llama.audio.resample import ResampleStream, SincStream
from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.errors import AudioError, ConfigError

PUBLISHED_WINDOW_S = 60
"""Length of a window of the published system."""
PUBLISHED_STEP_S = 3600
"""It hears one more window for each full hour."""
MIN_LAST_S = 1.0
"""A shorter rest at the end of a track joins the window before it."""
WAVEFORM_BLOCK = 2**18
"""Samples of a waveform in memory that are resampled at a time."""


@dataclass(frozen=True)
class Window:
    """Some seconds of a track.

    Args:
        start_s: where it begins in the track.
        end_s: where it ends in the track.
        waveform: its sound, mono.
    """

    start_s: float
    end_s: float
    waveform: Waveform


@dataclass(frozen=True)
class WindowPlan:
    """Which seconds of a track are heard, and how much each window counts."""

    name: Literal["full", "published"] = "full"
    """`full` hears every second; `published` what the published system hears: the first minute, and one more
    minute for each full hour that the track lasts."""
    window_s: float = 60.0
    """Seconds in one window; `published` allows 60 only."""

    def __post_init__(self) -> None:
        problems = []
        if self.name not in ("full", "published"):
            problems.append(f"name is {self.name!r}; expected 'full' or 'published'")
        if not (math.isfinite(self.window_s) and self.window_s >= MIN_LAST_S):
            problems.append(f"window_s is {self.window_s}; expected at least {MIN_LAST_S:g} seconds")
        elif self.name == "published" and self.window_s != PUBLISHED_WINDOW_S:
            problems.append(f"window_s is {self.window_s}; the published plan has windows of {PUBLISHED_WINDOW_S} s")
        if problems:
            raise ConfigError("window plan: " + "; ".join(problems))

    @property
    def key(self) -> str:
        """Text that changes whenever the sound of the windows does, for cache keys."""
        resampler = "soxr-hq" if self.name == "full" else "sinc-hann"
        return f"{self.name}-{self.window_s:g}s-{resampler}"

    def weight(self, window: Window) -> float:
        """Return how much a window counts, before normalising: its seconds, or 1 if `published`."""
        return 1.0 if self.name == "published" else window.end_s - window.start_s


FULL = WindowPlan()
"""Every second is heard."""
PUBLISHED = WindowPlan("published")
"""What the published system hears."""
PLANS: Mapping[str, WindowPlan] = MappingProxyType({plan.name: plan for plan in (FULL, PUBLISHED)})
"""The plans by name."""


class _Converter(Protocol):
    def feed(self, block: Samples) -> Samples: ...
    def finish(self) -> Samples: ...


class _Signal(Protocol):
    """Sound that can be gone through in blocks (C, n): an AudioStream, or a Waveform cut to a range."""

    rate_hz: int
    num_channels: int

    def __iter__(self) -> Iterator[Samples]: ...
    def has_sample(self, index: int) -> bool: ...
    def close(self) -> None: ...


def stream_windows(
    source: AudioSource | Waveform,
    *,
    plan: WindowPlan = FULL,
    rate_hz: int,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    mix: Downmix | None = None,
) -> Iterator[Window]:
    """Yield the windows of a track that a plan hears, in order, reading no further than asked.

    Args:
        source: path, bytes, binary file or waveform.
        plan: which seconds. `published` resamples each channel by the published formula before averaging
            them, from the neighbours each window has in the track.
        rate_hz: rate of the windows.
        offset_s: the part of the track to consider starts here; window times are still those of the track.
        duration_s: length of that part at most; None for all.
        mix: measures whether the mean of the channels loses their sound, so that the caller can read again with one.

    Yields:
        Windows; one or two of them are in memory, whatever the length of the track.

    Raises:
        AudioError: if the source can't be heard (see `open_audio`).

    Example:
        >>> import numpy as np
        >>> track = Waveform(np.zeros(130 * 8000, dtype=np.float32), 8000)
        >>> [(w.start_s, w.end_s) for w in stream_windows(track, rate_hz=8000)]
        [(0.0, 60.0), (60.0, 120.0), (120.0, 130.0)]
    """
    if rate_hz <= 0:
        raise AudioError(f"rate_hz is {rate_hz}; expected a positive number of samples per second")
    signal: _Signal
    if isinstance(source, Waveform):
        signal = _WaveformSignal(source, offset_s=offset_s, duration_s=duration_s)
    else:
        signal = open_audio(source, offset_s=offset_s, duration_s=duration_s)
    mix = mix or Downmix()
    with closing(signal):
        chunks = _full(signal, plan, rate_hz, mix) if plan.name == "full" else _published(signal, rate_hz, mix)
        first = 0
        for samples in chunks:
            last = first + samples.size
            yield Window(offset_s + first / rate_hz, offset_s + last / rate_hz, Waveform(samples, rate_hz))
            first = last


def merge_spans(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join stretches (start_s, end_s) that touch, in order.

    Example:
        >>> merge_spans([(0.0, 60.0), (60.0, 70.0), (90.0, 100.0)])
        [(0.0, 70.0), (90.0, 100.0)]
    """
    merged: list[tuple[float, float]] = []
    for start_s, end_s in sorted(spans):
        if merged and start_s <= merged[-1][1] + 1e-6:
            merged[-1] = (merged[-1][0], max(end_s, merged[-1][1]))
        else:
            merged.append((start_s, end_s))
    return merged


def _full(signal: _Signal, plan: WindowPlan, rate_hz: int, mix: Downmix) -> Iterator[Samples]:
    """Cut the mean of the channels into windows; a rest of under MIN_LAST_S joins the last one."""
    mix.start(num_channels=signal.num_channels, rate_hz=signal.rate_hz)
    mono = (mix.select(block).mean(axis=0, keepdims=True) for block in signal)
    converter = ResampleStream(signal.rate_hz, rate_hz)
    yield from _cut(mono, converter, round(plan.window_s * rate_hz), rest_size=round(MIN_LAST_S * rate_hz))


def _published(signal: _Signal, rate_hz: int, mix: Downmix) -> Iterator[Samples]:
    """Yield the first minute, then one more minute from the track's beginning for each hour it lasts.

    compat: the published code steps through seconds where minutes were meant, so it hears
    ceil((floor(seconds / 60) + 1) / 60) consecutive windows of a minute.
    """

    def minutes() -> Iterator[Samples]:
        mix.start(num_channels=signal.num_channels, rate_hz=signal.rate_hz)
        converter = SincStream(signal.rate_hz, rate_hz, num_channels=mix.num_selected)
        return _cut(map(mix.select, signal), converter, PUBLISHED_WINDOW_S * rate_hz, rest_size=0)

    yield from islice(minutes(), 1)
    num_windows = 1
    while _lasts(signal, num_windows * PUBLISHED_STEP_S, rate_hz):
        num_windows += 1
    if num_windows > 1:
        yield from islice(minutes(), 1, num_windows)


def _lasts(signal: _Signal, seconds: int, rate_hz: int) -> bool:
    """Tell whether the signal, once resampled, has at least that many seconds; asks the signal, not its header."""
    # ceil(n * rate_hz / signal.rate_hz) >= seconds * rate_hz, solved for the last of n samples
    return signal.has_sample((seconds * rate_hz - 1) * signal.rate_hz // rate_hz)


def _cut(blocks: Iterator[Samples], converter: _Converter, size: int, *, rest_size: int) -> Iterator[Samples]:
    """Convert blocks (C, n), average the channels, and cut the result into windows of `size` samples.

    A window is handed out once `rest_size` samples after it are known, so that a shorter rest can join it.
    """
    held: list[Samples] = []
    num_held = 0
    converted = (converter.feed(block) for block in blocks)
    for part in chain(converted, (converter.finish() for _ in range(1))):
        held.append(part.mean(axis=0, dtype=np.float32))
        num_held += part.shape[1]
        while num_held >= size + max(1, rest_size):
            joined = np.concatenate(held)
            yield joined[:size].copy()
            held, num_held = [joined[size:].copy()], num_held - size
    if num_held:
        yield np.concatenate(held)


class _WaveformSignal:
    """A range of a waveform in memory, gone through like a file."""

    num_channels = 1

    def __init__(self, waveform: Waveform, *, offset_s: float, duration_s: float | None) -> None:
        check_range(offset_s, duration_s)
        self.rate_hz = waveform.rate_hz
        start = sample_at(offset_s, self.rate_hz)
        stop = None if duration_s is None else start + max(1, sample_at(duration_s, self.rate_hz))
        self._samples = waveform.samples[start:stop]
        if self._samples.size == 0:
            raise AudioError(f"the waveform has no sound at offset {offset_s:g} s; it lasts {waveform.duration_s:g} s")

    def __iter__(self) -> Iterator[Samples]:
        for first in range(0, self._samples.size, WAVEFORM_BLOCK):
            yield self._samples[None, first : first + WAVEFORM_BLOCK]

    def has_sample(self, index: int) -> bool:
        return index < self._samples.size

    def close(self) -> None:
        pass
