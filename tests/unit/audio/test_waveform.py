from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from mu_llama.audio.waveform import Waveform
from mu_llama.errors import AudioError

SINE = np.sin(np.arange(4000) / 7) * 0.5


@pytest.mark.parametrize("rate_hz", [44100, 44100.0, np.int64(44100), np.float32(44100), Fraction(44100)])
def test_a_rate_is_any_whole_number(rate_hz: Any) -> None:
    wave = Waveform(SINE.astype(np.float32), rate_hz)
    assert (wave.rate_hz, type(wave.rate_hz)) == (44100, int)


@pytest.mark.parametrize("rate_hz", [0, -1, 44100.5, float("nan"), float("inf"), "44100", None, True, [1, 2], 1 + 2j])
def test_any_other_rate_is_refused(rate_hz: Any) -> None:
    with pytest.raises(AudioError, match=r"rate_hz is .*; expected a positive whole number"):
        Waveform(SINE.astype(np.float32), rate_hz)


@pytest.mark.parametrize(
    "samples",
    [
        SINE, SINE.astype(np.float16), torch.tensor(SINE, requires_grad=True), torch.tensor(SINE).to(torch.bfloat16),
        np.round(SINE * 2**15).astype(np.int16), np.round(SINE * 2**31).astype(np.int32),
        torch.tensor(np.round(SINE * 2**15).astype(np.int16)), np.round(SINE * 128 + 128).astype(np.uint8),
        SINE[None], SINE[:, None], np.stack([SINE, SINE]), np.stack([SINE] * 6, axis=1), torch.tensor(SINE)[None],
    ],
    ids=lambda samples: f"{type(samples).__name__} {samples.dtype} {tuple(samples.shape)}",
)  # fmt: skip
def test_arrays_and_tensors_become_mono_floats(samples: Any) -> None:
    wave = Waveform(samples, 8000)
    assert (wave.samples.dtype, wave.samples.shape) == (np.float32, SINE.shape)
    np.testing.assert_allclose(wave.samples, SINE, atol=0.005)


def test_float32_is_neither_copied_nor_changed() -> None:
    samples = SINE.astype(np.float32)
    assert Waveform(samples, 8000).samples is samples


def test_channels_of_opposite_polarity_do_not_become_silence() -> None:
    np.testing.assert_allclose(Waveform(np.stack([SINE, -SINE]), 8000).samples, SINE, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([0.1, 0.2], "samples are list; expected an array"),
        ("song.wav", "samples are str"),
        (np.zeros(9, np.int64), "samples are int64, whose full scale isn't known"),
        (np.zeros(9, complex), "samples are complex128"),
        (np.zeros((4, 4)), r"samples have shape \(4, 4\), and which of the two counts channels isn't clear"),
        (np.zeros((20, 4000)), r"shape \(20, 4000\)"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\); expected \(S,\)"),
        (np.zeros(()), r"shape \(\); expected \(S,\)"),
        (np.zeros(0), "there are 0 samples"),
        (np.full(9, np.nan), "NaN or infinity"),
        (np.full(9, 1e300), "NaN or infinity"),
    ],
)
def test_what_is_no_waveform(samples: Any, problem: str) -> None:
    with pytest.raises(AudioError, match=problem):
        Waveform(samples, 8000)
