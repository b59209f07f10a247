"""Augmentations do what their names say, the same for the same source of randomness."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import signal

from mu_llama.audio.augment import AUGMENTATIONS, add_noise, chain, change_level, equalise, through_a_phone
from mu_llama.audio.waveform import Waveform
from mu_llama.errors import ConfigError

RATE_HZ = 16000


def tones(*frequencies_hz: float) -> Waveform:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    samples = sum(np.sin(2 * np.pi * frequency * time_s) for frequency in frequencies_hz)
    return Waveform((0.1 * np.asarray(samples)).astype(np.float32), RATE_HZ)


def power_db(window: Waveform, frequency_hz: float) -> float:
    frequencies, density = signal.periodogram(window.samples[2000:-2000], RATE_HZ, window="hann")
    near = np.abs(frequencies - frequency_hz) < 10
    return float(10 * np.log10(density[near].sum()))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_rate_and_length_stay_and_randomness_decides(name: str) -> None:
    window = tones(200, 1000)
    one, same, other = (AUGMENTATIONS[name](window, random.Random(seed)) for seed in (1, 1, 2))
    assert (one.rate_hz, one.samples.size) == (RATE_HZ, window.samples.size)
    assert np.array_equal(one.samples, same.samples)
    assert not np.allclose(one.samples, other.samples)
    assert not np.allclose(one.samples, window.samples)


def test_a_phone_keeps_the_middle() -> None:
    window = tones(60, 1000, 7000)
    heard = through_a_phone(window, random.Random(0))
    change = [power_db(heard, hz) - power_db(window, hz) for hz in (60, 1000, 7000)]
    assert change[0] < -30
    assert abs(change[1]) < 1
    assert change[2] < -15


def test_level_clips_and_equaliser_stays_within_its_gains() -> None:
    loud = Waveform(np.full(100, 0.9, dtype=np.float32), RATE_HZ)
    levels = [float(change_level(loud, random.Random(seed)).samples.max()) for seed in range(40)]
    assert max(levels) == 1.0
    assert min(levels) < 0.3
    window = tones(100, 400, 3000)
    for seed in range(5):
        heard = equalise(window, random.Random(seed))
        assert all(abs(power_db(heard, hz) - power_db(window, hz)) < 8.5 for hz in (100, 400, 3000))


def test_noise_keeps_its_distance() -> None:
    window = tones(500)
    for seed in range(10):
        noise = add_noise(window, random.Random(seed)).samples - window.samples
        ratio_db = 10 * np.log10(np.mean(window.samples**2) / np.mean(noise**2))
        assert 14.5 < ratio_db < 40.5


def test_a_chain_uses_each_half_the_time() -> None:
    window = tones(300)
    changed = [
        not np.array_equal(chain(["noise"])(window, random.Random(n)).samples, window.samples) for n in range(200)
    ]
    assert 70 < sum(changed) < 130
    with pytest.raises(ConfigError, match="'echo' is unknown; expected some of: level"):
        chain(["echo"])
