"""Fresh adapters: drawn from the seed alone, and as each of the two recipes starts."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mu_llama.errors import ConfigError
from mu_llama.training.initialization import FeatureStatistics, feature_statistics, fresh_adapter, fresh_lora
from tests.factories.llama import SIZES
from tests.factories.tensors import read


def test_it_is_drawn_from_the_seed_alone() -> None:
    one, other = fresh_adapter(SIZES, seed=3), fresh_adapter(SIZES, seed=4)
    name = "adapter.blocks.1.up.weight"
    assert torch.equal(read(one[name]), read(one[name]))
    assert torch.equal(read(one[name]), read(fresh_adapter(SIZES, seed=3)[name]))
    assert not torch.equal(read(one[name]), read(other[name]))
    assert not torch.equal(read(one[name]), read(one["adapter.blocks.0.up.weight"]))
    assert read(one[name]).abs().max() <= SIZES.hidden_size**-0.5


@pytest.mark.parametrize("legacy", [False, True])
def test_the_published_start(legacy: bool) -> None:
    sizes = dataclasses.replace(SIZES, legacy_bridge=legacy, hidden_size=600, num_conditioned_layers=20)
    tensors = {name: read(stored) for name, stored in fresh_adapter(sizes, seed=0).items()}
    assert not tensors["conditioner.gate"].any()
    assert tensors["conditioner.prefix"].std().item() == pytest.approx(1.0, abs=0.05)
    assert (tensors["adapter.blocks.0.norm.weight"] == 1).all()
    assert ("adapter.blocks.0.norm.bias" in tensors) == legacy
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in tensors.values())


def test_the_start_with_statistics() -> None:
    sizes = dataclasses.replace(SIZES, input_scaling="standardise")
    features = torch.randn(50, 2, 7) * 3 + 5
    features[:, 0, 0] = 4.0  # silent in every track
    statistics = feature_statistics(features)
    torch.testing.assert_close(statistics.mean, features.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(statistics.std, features.std(0).clamp_min(1e-3), atol=1e-5, rtol=0)
    tensors = {name: read(stored) for name, stored in fresh_adapter(sizes, seed=0, statistics=statistics).items()}
    assert torch.equal(tensors["adapter.feature_mean"], statistics.mean)
    assert torch.equal(tensors["adapter.feature_deviation"], statistics.std)
    assert (tensors["conditioner.gate"] == 0.1).all()
    assert (tensors["adapter.layer_mix.weight"] == 1).all()
    assert not tensors["adapter.layer_mix.bias"].any()
    assert tensors["adapter.projection.weight"].std().item() == pytest.approx(0.1, abs=0.02)


def test_statistics_and_sizes_must_agree() -> None:
    statistics = FeatureStatistics(torch.zeros(2, 7), torch.ones(2, 7))
    with pytest.raises(ConfigError, match="input_scaling is 'none'"):
        fresh_adapter(SIZES, seed=0, statistics=statistics)
    sizes = dataclasses.replace(SIZES, input_scaling="standardise")
    with pytest.raises(ConfigError, match="shape None"):
        fresh_adapter(sizes, seed=0)
    with pytest.raises(ConfigError, match=r"shape \(1, 7\)"):
        fresh_adapter(sizes, seed=0, statistics=FeatureStatistics(torch.zeros(1, 7), torch.ones(1, 7)))
    with pytest.raises(ConfigError, match="1 tracks"):
        feature_statistics([torch.zeros(2, 7)])


def test_a_fresh_lora_adds_nothing() -> None:
    down, up = (read(stored) for stored in fresh_lora("a.module", (6, 10), rank=3, seed=0))
    assert down.shape == (3, 10)
    assert down.any()
    assert not (up @ down).any()
