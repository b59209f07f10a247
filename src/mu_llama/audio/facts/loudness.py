"""Integrated loudness by ITU-R BS.1770-5, block by block, each channel weighted by its position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mu_llama.audio.facts.fact import Fact
from mu_llama.audio.facts.libraries import Libraries
from mu_llama.audio.waveform import Samples

_UNWEIGHTED = frozenset({"LFE", "LFE2"})
_SURROUND = frozenset({"BL", "BR", "BC", "SL", "SR", "TBL", "TBR", "TBC", "SDL", "SDR"})
_SURROUND_WEIGHT = 1.41
"""Channels beside and behind the listener, as the standard has it and as FFmpeg's ebur128 applies it."""
_USUAL_NAMES = {
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""Order of so many channels in a file that doesn't name them, as FLAC has it (RFC 9639, section 9.1.3)."""
# K-weighting as filters for any rate: B. De Man, Evaluation of Implementations of the EBU R128 Loudness Measurement,
# AES Convention 145 (2018). Gain in dB, quality, frequency in Hz, kind.
_SHELF = (3.99984385397, 0.7071752369554193, 1681.9744509555319, "high_shelf_DeMan")
_HIGH_PASS = (0.0, 0.5003270373253953, 38.13547087613982, "high_pass_DeMan")
_STEP_S = 0.1
_STEPS_A_BLOCK = 4
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
_OFFSET_LU = -0.691

Energies = npt.NDArray[np.float64]


def channel_weights(names: Sequence[str]) -> Energies:
    """Return how much the power of each channel counts.

    Args:
        names: FFmpeg's short names; where the file names none (`NONE`), the usual order of so many channels is taken.

    Example:
        >>> channel_weights(("FL", "FR", "FC", "LFE", "BL", "BR")).tolist()
        [1.0, 1.0, 1.0, 0.0, 1.41, 1.41]
    """
    if all(name == "NONE" for name in names):
        names = _USUAL_NAMES.get(len(names), names)
    return np.array([0.0 if name in _UNWEIGHTED else _SURROUND_WEIGHT if name in _SURROUND else 1.0 for name in names])


class LoudnessMeter:
    """Measures a stream of blocks; memory grows by ten numbers a second.

    Args:
        libraries: pyloudnorm designs the filters, SciPy applies them.
        rate_hz: rate of the blocks.
        channel_names: FFmpeg's short name of each channel.
    """

    def __init__(self, libraries: Libraries, rate_hz: int, channel_names: Sequence[str]) -> None:
        self._weights = channel_weights(channel_names)
        num_channels = len(self._weights)
        filters = [libraries.pyloudnorm.IIRfilter(*design[:3], rate_hz, design[3]) for design in (_SHELF, _HIGH_PASS)]
        self._sections = np.array([[*design.b, *design.a] for design in filters])
        self._state = np.zeros((len(filters), num_channels, 2))
        self._signal = libraries.signal
        self._can_measure = rate_hz > 2 * _SHELF[2]
        self._step = _STEP_S * rate_hz
        self._num_samples = 0
        self._steps: list[Energies] = []
        """Weighted power sums of whole steps of 100 ms."""
        self._rest = np.zeros(0)

    def feed(self, block: Samples) -> None:
        """Take a block (C, n)."""
        filtered, self._state = self._signal.sosfilt(self._sections, block, axis=1, zi=self._state)
        squares = filtered**2
        power = np.concatenate([self._rest, self._weights @ squares])
        first = self._num_samples - self._rest.size
        self._num_samples += block.shape[1]
        bounds = self._bounds(first, self._num_samples) - first
        if bounds.size > 1:
            self._steps.append(np.add.reduceat(power[: bounds[-1]], bounds[:-1]))
        self._rest = power[bounds[-1] :]

    def fact(self) -> Fact | None:
        """Return the integrated loudness so far; None where nothing reaches the gate of -70 LUFS."""
        loudness = self.integrated_lufs()  # + 0.0 makes 0 of a negative 0
        return None if loudness is None else Fact(round(loudness, 1) + 0.0, 1.0, "ITU-R BS.1770 (pyloudnorm)")

    def integrated_lufs(self) -> float | None:
        """Return the gated mean over blocks of 400 ms that overlap by three quarters."""
        steps = np.concatenate([*self._steps, np.zeros(0)])
        if not self._can_measure or steps.size < _STEPS_A_BLOCK:
            return None
        power = np.convolve(steps, np.ones(_STEPS_A_BLOCK), "valid") / (_STEPS_A_BLOCK * self._step)
        power = power[power > _power_of(_ABSOLUTE_GATE_LUFS)]
        if power.size == 0:
            return None
        power = power[power > power.mean() * 10 ** (_RELATIVE_GATE_LU / 10)]
        return _OFFSET_LU + 10 * float(np.log10(power.mean()))

    def _bounds(self, first: int, last: int) -> npt.NDArray[np.int64]:
        """Samples from `first`, which is one, up to `last` where a step begins or ends."""
        number = round(first / self._step)
        bounds = np.round(np.arange(number, last / self._step + 1) * self._step).astype(np.int64)
        return bounds[bounds <= last]


def _power_of(loudness_lufs: float) -> float:
    return float(10 ** ((loudness_lufs - _OFFSET_LU) / 10))
