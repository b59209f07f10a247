"""Channels that cancel in their mean: one of them is used, for the whole track or not at all."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mu_llama.audio.downmix import Downmix, mix_down
from mu_llama.audio.facts import measure_facts
from mu_llama.audio.read import AudioWarning, read_audio
from mu_llama.audio.windows import FULL, PUBLISHED, ListenOptions, WindowPlan, stream_windows

RATE_HZ = 8000


def sound(seconds: float, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE_HZ)).astype(np.float32)


def wav(channels: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, channels.T, RATE_HZ, format="WAV", subtype="FLOAT")
    return file.getvalue()


def side(correlation: float, seconds: float = 4) -> np.ndarray:
    """Two equally loud channels of a correlation."""
    one, two = sound(seconds), sound(seconds, seed=1)
    return np.stack([one, correlation * one + (1 - correlation**2) ** 0.5 * two]).astype(np.float32)


def joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1)


SAME, REVERSED = side(1.0), side(-1.0)
QUIET = np.zeros((2, 4 * RATE_HZ), np.float32)
ORDINARY = {
    "mono": SAME[:1],
    "equal": SAME,
    "unrelated": side(0.0),
    "wide": side(-0.8),
    "one channel only": np.stack([SAME[0], 0 * SAME[0]]),
    "reversed and half as loud": np.stack([SAME[0], -0.5 * SAME[0]]),
    "silent": QUIET,
    "six unrelated": np.stack([sound(4, seed=seed) for seed in range(6)]),
    "reversed for a fifth": joined(SAME, SAME, SAME, SAME, REVERSED),
}
CANCELLING = {
    "reversed": REVERSED,
    "nearly reversed": side(-0.95),
    "reversed and a little quieter": np.stack([SAME[0], -0.9 * SAME[0]]),
    "reversed and hardly louder": np.stack([SAME[0], -1.01 * SAME[0]]).astype(np.float32),
    "reversed after silence": joined(QUIET, REVERSED),
    "reversed for a third": joined(SAME, SAME, REVERSED),
    "reversed after a loud beginning": joined(10 * SAME, REVERSED, REVERSED),
    "reversed in four channels": np.stack([SAME[0], -SAME[0], SAME[0], -SAME[0]]),
    "shorter than a second": REVERSED[:, : RATE_HZ // 3],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_tracks_are_the_mean_to_the_last_bit(name: str) -> None:
    channels = ORDINARY[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(mix_down(channels, rate_hz=RATE_HZ), channels.mean(axis=0))
        np.testing.assert_array_equal(read_audio(wav(channels)).samples, channels.mean(axis=0))


@pytest.mark.parametrize("name", CANCELLING)
def test_channels_that_cancel_give_the_loudest_from_beginning_to_end(name: str) -> None:
    channels = CANCELLING[name]
    expected = channels[0]
    np.testing.assert_array_equal(mix_down(channels, rate_hz=RATE_HZ), expected)
    with pytest.warns(AudioWarning, match=r"the channels cancel .*, so channel [12] is used alone; check"):
        np.testing.assert_array_equal(read_audio(wav(channels)).samples, expected)


def test_the_loudest_channel_is_not_always_the_first() -> None:
    channels = np.stack([SAME[0], -1.2 * SAME[0]]).astype(np.float32)
    np.testing.assert_array_equal(mix_down(channels, rate_hz=RATE_HZ), channels[1])


@pytest.mark.parametrize("channels", [*ORDINARY.values(), *CANCELLING.values()])
def test_the_decision_does_not_depend_on_the_blocks(channels: np.ndarray) -> None:
    chosen = set()
    for size in (77, 8000, 10**6):
        mix = Downmix()
        mix.start(num_channels=len(channels), rate_hz=RATE_HZ)
        for first in range(0, channels.shape[1], size):
            mix.select(channels[:, first : first + size])
        mix.settle()
        chosen.add(mix.channel)
    assert len(chosen) == 1


@pytest.mark.parametrize("plan", [WindowPlan(window_s=2.0), FULL, PUBLISHED], ids=lambda plan: plan.key)
def test_windows_are_measured_and_read_again(plan: WindowPlan, tmp_path: Path) -> None:
    path, mix = tmp_path / "reversed.wav", Downmix()
    path.write_bytes(wav(REVERSED))
    first = list(stream_windows(path, options=ListenOptions(window=plan), rate_hz=RATE_HZ, mix=mix))
    assert all(not window.waveform.samples.any() for window in first)
    assert mix.settle()
    again = list(stream_windows(path, options=ListenOptions(window=plan), rate_hz=RATE_HZ, mix=mix))
    assert not mix.settle()
    samples = np.concatenate([window.waveform.samples for window in again])
    np.testing.assert_array_equal(samples, REVERSED[0])


@pytest.mark.filterwarnings("ignore::mu_llama.audio.read.AudioWarning")
def test_facts_are_those_of_one_channel() -> None:
    beats = np.zeros(RATE_HZ * 6, np.float32)
    beats[:: RATE_HZ // 2] = 0.5
    left = beats + 0.1 * np.sin(np.arange(beats.size, dtype=np.float32) / 3)
    facts = measure_facts(wav(np.stack([left, -left])))
    expected = measure_facts(wav(left[None]))
    assert expected.tempo_bpm is not None
    assert (facts.tempo_bpm, facts.key) == (expected.tempo_bpm, expected.key)
