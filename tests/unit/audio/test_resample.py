from __future__ import annotations

import math
import time

import numpy as np
import pytest
import soxr
import torch
from scipy import signal

from mu_llama.audio.resample import ResampleStream, SincStream
from tests.factories.resample import sinc_resample

RATES = [
    (44100, 24000), (48000, 24000), (8000, 24000), (16000, 24000), (11025, 24000), (192000, 24000),
    (599, 480), (24000, 44100), (3, 100), (1000, 3), (24000, 24000),
]  # fmt: skip


def formula(x: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """The published formula in float64, written out as one dense strided convolution."""
    divisor = math.gcd(from_hz, to_hz)
    o, n = from_hz // divisor, to_hz // divisor
    if o == n:
        return x
    b = min(o, n) * 0.99
    width = math.ceil(6 * o / b)
    inputs, outputs = torch.arange(-width, width + o).double() / o, torch.arange(n).double() / n
    t = inputs[None] - outputs[:, None]
    t = (t * b).clamp(-6, 6)
    kernel = torch.sinc(t) * torch.cos(t * math.pi / 12) ** 2 * b / o
    padded = torch.nn.functional.pad(torch.from_numpy(x).double(), (width, width + o))
    out = torch.nn.functional.conv1d(padded[None, None], kernel[:, None], stride=o)
    return out[0].T.reshape(-1)[: -(-x.size * to_hz // from_hz)].numpy()


def in_blocks(stream: ResampleStream | SincStream, x: np.ndarray, seed: int) -> np.ndarray:
    rng, parts, start = np.random.default_rng(seed), [], 0
    while start < x.shape[1]:
        size = int(rng.integers(1, 5000))
        parts.append(stream.feed(x[:, start : start + size]))
        start += size
    return np.concatenate([*parts, stream.finish()], axis=1)


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
@pytest.mark.parametrize("size", [1, 2, 100, 12345])
def test_sinc_is_the_published_formula(from_hz: int, to_hz: int, size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    out = sinc_resample(x, from_hz, to_hz)
    assert out.dtype == np.float32
    assert out.size == math.ceil(size * to_hz / from_hz)
    np.testing.assert_allclose(out, formula(x, from_hz, to_hz), atol=5e-6)


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_blocks_make_no_difference(from_hz: int, to_hz: int) -> None:
    x = np.random.default_rng(1).standard_normal((2, 20011)).astype(np.float32)
    whole = sinc_resample(x, from_hz, to_hz)
    np.testing.assert_allclose(in_blocks(SincStream(from_hz, to_hz, num_channels=2), x, 2), whole, atol=2e-6)
    first, second = (in_blocks(ResampleStream(from_hz, to_hz, num_channels=2), x, seed) for seed in (3, 4))
    assert first.shape == second.shape == whole.shape
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_sinc_kernels_too_big_to_keep() -> None:
    x = np.random.default_rng(2).standard_normal(150_000).astype(np.float32)
    out = sinc_resample(x, 47999, 24000)
    middle = slice(30_000, 30_040)  # checked against a direct sum at some outputs
    cutoff = 24000 * 0.99 / 47999
    positions = np.arange(middle.start, middle.stop) * 47999 / 24000
    t = np.clip((np.arange(x.size)[None] - positions[:, None]) * cutoff, -6, 6)
    expected = (np.sinc(t) * np.cos(t * np.pi / 12) ** 2 * cutoff) @ x.astype(np.float64)
    np.testing.assert_allclose(out[middle], expected, atol=5e-6)


@pytest.mark.parametrize("from_hz", [44100, 48000, 47999])
def test_a_minute_of_stereo_is_quick(from_hz: int) -> None:
    x = np.zeros((2, 60 * from_hz), dtype=np.float32)
    sinc_resample(x[:, :1000], from_hz, 24000)
    start = time.perf_counter()
    sinc_resample(x, from_hz, 24000)
    assert time.perf_counter() - start < 3.0  # some 0.02 s, and 0.25 s for the odd rate


def test_soxr_stream_equals_soxr_and_keeps_a_tone() -> None:
    t = np.arange(44100 * 2) / 44100
    tone = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    out = in_blocks(ResampleStream(44100, 24000), tone[None], 5)[0]
    assert out.size == 48000
    np.testing.assert_allclose(out, soxr.resample(tone, 44100, 24000, quality="HQ"), atol=1e-5)
    inner = slice(2000, -2000)
    np.testing.assert_allclose(out[inner], np.sin(2 * np.pi * 1000 * np.arange(48000) / 24000)[inner], atol=1e-4)
    np.testing.assert_allclose(out[inner], signal.resample_poly(tone, 80, 147)[inner], atol=1e-2)


def test_nothing_above_the_new_nyquist_is_left() -> None:
    t = np.arange(48000) / 48000
    high = np.sin(2 * np.pi * 14000 * t).astype(np.float32)
    for out in (in_blocks(ResampleStream(48000, 16000), high[None], 6)[0], sinc_resample(high, 48000, 16000)):
        assert np.abs(out[500:-500]).max() < 0.01


@pytest.mark.parametrize("size", [1, 2, 5])
def test_soxr_stream_of_a_few_samples(size: int) -> None:
    stream = ResampleStream(48000, 24000)
    x = np.ones((1, size), dtype=np.float32)
    assert in_blocks(stream, x, 0).shape[1] == math.ceil(size / 2)
