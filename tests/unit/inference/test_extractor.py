"""Which encoder runs, how often it is built, and where it computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mu_llama.audio.waveform import Waveform
from mu_llama.audio.windows import FULL, PUBLISHED, ListenOptions, plan_by_name
from mu_llama.encoders.cache import FeatureCache
from mu_llama.errors import ConfigError
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.inference.results import compute_steps


class LevelEncoder:
    """Its one feature is the sound's level; notes in which threads it computes."""

    name, fingerprint, rate_hz, num_layers, width = "level", "0", 1000, 1, 1
    threads: set[int]

    def __init__(self) -> None:
        self.threads = set()

    def encode(self, window: Waveform) -> npt.NDArray[np.float32]:
        self.threads.add(threading.get_ident())
        return np.array([[np.abs(window.samples).max()]], np.float32)


class Tagging(LevelEncoder):
    def tag_probabilities(self, values: npt.NDArray[np.float32]) -> dict[str, float]:
        self.threads.add(threading.get_ident())
        return {"loud": float(values[0, 0])}


@pytest.fixture
def track() -> Waveform:
    """Two minutes, the second of them twice as loud."""
    return Waveform(np.repeat(np.array([0.25, 0.5], dtype=np.float32), 60 * 1000), 1000)


def extractor(encoders: list[LevelEncoder], make: Callable[[], LevelEncoder], **more: Any) -> FeatureExtractor:
    def build() -> LevelEncoder:
        encoders.append(make())
        return encoders[-1]

    return FeatureExtractor(build, plan=FULL, **{"cache": None, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(("make", "num_built"), [(LevelEncoder, 1), (Tagging, 2)])
def test_a_dropped_encoder_is_built_again_only_to_read_tags(
    track: Waveform, make: Callable[[], LevelEncoder], num_built: int
) -> None:
    encoders: list[LevelEncoder] = []
    dropping = extractor(encoders, make, keep_encoder=False)
    features = dropping.extract(track).values
    assert dropping.tags(features) == ({"loud": 0.375} if make is Tagging else {})
    assert len(encoders) == num_built


def test_all_extractors_of_one_encoder_share_it_and_compute_in_the_given_thread(track: Waveform) -> None:
    encoders: list[LevelEncoder] = []
    original = extractor(encoders, Tagging)
    with ThreadPoolExecutor(1) as pool:
        other = original.computed_by(lambda function: pool.submit(function).result())
        thread = pool.submit(threading.get_ident).result()
        features = other.extract(track)
        other.tags(features.values)
    assert other.encoder is original.encoder
    assert len(encoders) == 1
    assert encoders[0].threads == {thread}


def test_options_choose_seconds_and_name_what_is_cached(track: Waveform, tmp_path: Path) -> None:
    cached = extractor([], LevelEncoder, cache=FeatureCache(tmp_path))
    options = [
        ListenOptions(), ListenOptions(offset_s=60), ListenOptions(duration_s=30), ListenOptions(window=PUBLISHED),
    ]  # fmt: skip
    expected = [(0.375, 120), (0.5, 120), (0.25, 30), (0.25, 60)]
    for _ in range(2):
        found = [cached.extract(track, options=part) for part in options]
        assert [(features.values.item(), features.spans[-1][1]) for features in found] == expected
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(options)


def test_names_of_windows() -> None:
    assert [plan_by_name(name) for name in ("auto", "full", "published")] == [None, FULL, PUBLISHED]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="window is 'half'; expected auto, full or published"):
        plan_by_name("half")  # type: ignore[arg-type]


def test_others_compute_between_two_steps() -> None:
    order: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        steps = compute_steps(iter("ab"), lambda function: pool.submit(function).result())
        order.append(next(steps))
        pool.submit(order.append, "between").result()
        order += steps
    assert order == ["a", "between", "b"]
