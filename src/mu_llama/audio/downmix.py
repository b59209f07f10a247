"""Turns channels into one: their mean, or one of them where the mean would lose the sound.

A recording with the polarity of one channel reversed plays at its full loudness, but its mean is silence. The decision
is made for a whole track, never within it: where the channels cancel in at least a quarter of the seconds that hold
sound, the loudest channel is used from beginning to end. Every other track is the plain mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

CANCELLED_RATIO = 0.1
"""Channels cancel where the power of their sum is below this share of the sum of their powers.

The ratio is C for C equal channels, 1 for unrelated ones, and 0 for two of opposite polarity. For two channels equally
loud, 0.1 is a correlation of -0.9."""
CANCELLED_SHARE = 0.25
"""From this share of the seconds with sound on, a track whose channels cancel there is read from one channel."""
LOUDEST_RATIO = 0.9
"""The first channel with this share of the power of the loudest one is used, so that rounding chooses none."""
SILENCE_POWER = 1e-8
"""A second in which no channel has more mean power (-80 dBFS) counts as silent."""


class Downmix:
    """Selects what is averaged while a track is read, and measures whether its channels cancel.

    Read a track through `select`, then call `settle`. If that is true, read the track again with the same object, which
    then selects one channel.

    Example:
        >>> left = np.sin(np.arange(16000, dtype=np.float32))[None]
        >>> mix, track = Downmix(), np.concatenate([left, -left])
        >>> mix.start(num_channels=2, rate_hz=16000)
        >>> float(np.abs(mix.select(track).mean(axis=0)).max()), mix.settle()
        (0.0, True)
        >>> bool((mix.select(track) == left).all())
        True
    """

    def __init__(self) -> None:
        self.channel: int | None = None
        """The channel that is used alone, counted from 0; None for the mean of all."""
        self.start(num_channels=1, rate_hz=1)

    def start(self, *, num_channels: int, rate_hz: int) -> None:
        """Begin to measure a track, from its first sample on; a chosen channel stays chosen."""
        self._rate_hz = rate_hz
        self._track_powers = np.zeros(num_channels)
        self._num_sounding = self._num_cancelled = 0
        self._start_second()

    @property
    def num_selected(self) -> int:
        """How many channels `select` gives."""
        return self._track_powers.size if self.channel is None else 1

    def select(self, block: Samples) -> Samples:
        """Return the channels (C, n) of a block that are to be averaged: all of them, or one as (1, n)."""
        if self.channel is not None:
            return block[self.channel : self.channel + 1]
        if block.shape[0] > 1:
            self._measure(block)
        return block

    @property
    def cancels(self) -> bool:
        """Whether the mean of what was read so far has lost the sound of the channels."""
        if self.channel is not None:
            return False
        sounding, cancelled = self._judged()
        return cancelled > 0 and cancelled >= CANCELLED_SHARE * sounding

    def settle(self) -> bool:
        """Decide after a track was read; True if it is to be read again, now in its loudest channel."""
        if not self.cancels:
            return False
        powers = self._track_powers + self._powers
        self.channel = int(np.argmax(powers >= LOUDEST_RATIO * powers.max()))
        return True

    def _start_second(self) -> None:
        self._powers: npt.NDArray[np.float64] = np.zeros_like(self._track_powers)
        self._sum_power = 0.0
        self._num_samples = 0

    def _measure(self, block: Samples) -> None:
        first = 0
        while first < block.shape[1]:
            part = block[:, first : first + self._rate_hz - self._num_samples]
            total = part.sum(axis=0)
            self._sum_power += float(total @ total)
            self._powers += [float(row @ row) for row in part]
            self._num_samples += part.shape[1]
            first += part.shape[1]
            if self._num_samples == self._rate_hz:
                self._num_sounding, self._num_cancelled = self._judged()
                self._track_powers += self._powers
                self._start_second()

    def _judged(self) -> tuple[int, int]:
        """Count the seconds with sound and those of them whose channels cancel, with the one that is being read."""
        if self._powers.max() <= SILENCE_POWER * self._num_samples:
            return self._num_sounding, self._num_cancelled
        is_cancelled = self._sum_power < CANCELLED_RATIO * self._powers.sum()
        return self._num_sounding + 1, self._num_cancelled + int(is_cancelled)


def mix_down(channels: Samples, *, rate_hz: int) -> Samples:
    """Turn a whole track in memory, (C, S), into one channel (S,): the mean, or the loudest where channels cancel.

    Example:
        >>> left = np.array([0.5, -0.25], dtype=np.float32)
        >>> mix_down(np.stack([left, left]), rate_hz=2), mix_down(np.stack([left, -left]), rate_hz=2)
        (array([ 0.5 , -0.25], dtype=float32), array([ 0.5 , -0.25], dtype=float32))
    """
    mix = Downmix()
    mix.start(num_channels=channels.shape[0], rate_hz=rate_hz)
    mix.select(channels)
    if mix.settle():
        channels = mix.select(channels)
    mono: Samples = channels.mean(axis=0)
    return mono
