"""Rough features: only where something draws, never for validation, by the amount that was set."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from mu_llama.training.example import Example
from mu_llama.training.features import AugmentedFeatures, FeatureTable, augment_features
from mu_llama.training.initialization import FeatureStatistics

AUDIO = Path("a.flac")
EXAMPLE = Example("a", audio=AUDIO, turns=())
STATISTICS = FeatureStatistics(mean=torch.full((1, 4000), 5.0), deviation=torch.full((1, 4000), 2.0))


def _rough(noise: float, dropout: float) -> AugmentedFeatures:
    table = FeatureTable(torch.ones(1, 1, 4000), {AUDIO: 0})
    return AugmentedFeatures(table, STATISTICS, noise=noise, dropout=dropout)


def test_validation_hears_features_as_they_are() -> None:
    assert torch.equal(_rough(1.0, 0.5).of(EXAMPLE), torch.ones(1, 4000))


def test_the_same_source_of_randomness_gives_the_same() -> None:
    first, second = (_rough(1.0, 0.5).of(EXAMPLE, rng=random.Random(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, _rough(1.0, 0.5).of(EXAMPLE, rng=random.Random(4)))


def test_noise_and_dropout_stay_within_what_was_set() -> None:
    shares = [(_rough(0.0, 0.5).of(EXAMPLE, rng=random.Random(seed)) == 5.0).float().mean() for seed in range(40)]
    assert 0.0 <= min(shares) < 0.1
    assert 0.4 < max(shares) <= 0.55
    spreads = [_rough(0.5, 0.0).of(EXAMPLE, rng=random.Random(seed)).std() for seed in range(40)]
    assert 0.0 <= min(spreads) < 0.2
    assert 0.8 < max(spreads) < 1.1, "half of a deviation of two"


def test_noise_is_in_deviations_of_each_feature() -> None:
    generator = torch.Generator().manual_seed(0)
    rough = augment_features(torch.ones(1, 4000), STATISTICS, noise=0.5, dropout=0.0, generator=generator)
    assert abs(float(rough.std()) - 1.0) < 0.1
