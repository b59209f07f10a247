"""Which seconds of a track are encoded (window plans, `ListenOptions`), yielded one window at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType
from typing import Literal, Protocol, get_args

import numpy as np

from mu_llama.audio.downmix import Downmix
from mu_llama.audio.read import AudioSource, check_range, open_audio, sample_at
from mu_llama.audio.resample import ResampleStream, SincStream
from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.errors import AudioError, ConfigError

PUBLISHED_WINDOW_S = 60
"""Length of a window of the published system."""
PUBLISHED_STEP_S = 3600
"""It encodes one more window for each full hour."""
MIN_LAST_S = 1.0
"""A shorter rest at the end of a track joins the window before it."""
WAVEFORM_BLOCK = 2**18
"""Samples of a waveform in memory that are resampled at a time."""
WindowName = Literal["full", "published"]
"""`full` covers every second; `published` what the published system encodes: the first minute, and one more minute for
each full hour that the track lasts."""
WindowChoice = Literal["auto", WindowName]
"""A window plan by name; `auto` is the model's own."""
Weighting = Literal["duration", "equal"]
"""How windows count in a track's mean: by their length, or (as in the published system) all the same."""


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
    """Which seconds of a track are encoded, and how much each window counts."""

    name: WindowName = "full"
    """See `WindowName`."""
    window_s: float = 60.0
    """Seconds in one window; `published` allows 60 only."""

    def __post_init__(self) -> None:
        problems = []
        if self.name not in get_args(WindowName):
            problems.append(f"name is {self.name!r}; expected {' or '.join(map(repr, get_args(WindowName)))}")
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

    @property
    def weighting(self) -> Weighting:
        """How the windows of this plan are averaged."""
        return "equal" if self.name == "published" else "duration"


FULL = WindowPlan()
"""Every second is encoded."""
PUBLISHED = WindowPlan("published")
"""What the published system encodes."""
PLANS: Mapping[str, WindowPlan] = MappingProxyType({plan.name: plan for plan in (FULL, PUBLISHED)})
"""The plans that a user or a model folder can name."""


def plan_by_name(name: WindowChoice) -> WindowPlan | None:
    """Look a window plan up; None for `auto`.

    Raises:
        ConfigError: if there is no such plan.
    """
    if name != "auto" and name not in PLANS:
        raise ConfigError(f"window is {name!r}; expected auto, {' or '.join(PLANS)}")
    return PLANS.get(name)


@dataclass(frozen=True)
class ListenOptions:
    """Which part of a track is encoded; offset and duration are checked when the track is opened."""

    offset_s: float = 0.0
    """Where the part starts, in seconds; times of windows are still those of the track."""
    duration_s: float | None = None
    """Length of the part at most, in seconds; None is up to the end."""
    window: WindowPlan | None = None
    """Which seconds of the part; None is the plan of the model or caller."""


WHOLE = ListenOptions()
"""The whole track."""


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
    rate_hz: int,
    options: ListenOptions = WHOLE,
    mix: Downmix | None = None,
) -> Iterator[Window]:
    """Yield the windows of a track in order, reading no further than needed.

    Args:
        source: path, bytes, binary file or waveform.
        rate_hz: rate of the windows.
        options: which seconds; without a window plan all of the part. The plan `published` resamples each channel by
            the published formula before averaging them, from the neighbours each window has in the track.
        mix: measures whether the mean of the channels loses their sound, so that the caller can read again with one.

    Yields:
        Windows; one or two of them are in memory, whatever the length of the track.

    Raises:
        AudioError: if the source can't be read (see `open_audio`).

    Example:
        >>> import numpy as np
        >>> track = Waveform(np.zeros(130 * 8000, dtype=np.float32), 8000)
        >>> [(w.start_s, w.end_s) for w in stream_windows(track, rate_hz=8000)]
        [(0.0, 60.0), (60.0, 120.0), (120.0, 130.0)]
    """
    if rate_hz <= 0:
        raise AudioError(f"rate_hz is {rate_hz}; expected a positive number of samples per second")
    offset_s, duration_s, plan = options.offset_s, options.duration_s, options.window or FULL
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

    compat: the published code steps through seconds where minutes were meant, so it encodes
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

    A window is yielded once `rest_size` samples after it are known, so that a shorter rest can join it.
    """
    pending: list[Samples] = []
    num_pending = 0
    converted = (converter.feed(block) for block in blocks)
    for part in chain(converted, (converter.finish() for _ in range(1))):
        pending.append(part.mean(axis=0, dtype=np.float32))
        num_pending += part.shape[1]
        while num_pending >= size + max(1, rest_size):
            joined = np.concatenate(pending)
            yield joined[:size].copy()
            pending, num_pending = [joined[size:].copy()], num_pending - size
    if num_pending:
        yield np.concatenate(pending)


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
