"""Features made rougher for training, so that nothing learns to trust every detail of the tracks it learned from."""

from __future__ import annotations

import random

import torch

from mu_llama.training.example import Example
from mu_llama.training.features import Features
from mu_llama.training.initialization import FeatureStatistics


def augment_features(
    features: torch.Tensor,
    statistics: FeatureStatistics,
    *,
    noise: float,
    dropout: float,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Add noise to features, and put the mean of all tracks in the place of some.

    Args:
        features: (..., L, D).
        statistics: of the training tracks.
        noise: standard deviations of Gaussian noise.
        dropout: share of the numbers that are replaced, 0 to 1.
        generator: draws; None draws from torch's own.

    Example:
        >>> two = FeatureStatistics(mean=torch.zeros(1, 2), deviation=torch.ones(1, 2))
        >>> augment_features(torch.ones(1, 2), two, noise=0.0, dropout=1.0)
        tensor([[0., 0.]])
    """
    normal = torch.randn(features.shape, generator=generator)
    left_out = torch.rand(features.shape, generator=generator) < dropout
    return torch.where(left_out, statistics.mean, features + noise * statistics.deviation * normal)


class AugmentedFeatures:
    """Features of another source, made rougher each time by another amount; satisfies `Features`.

    What is new at the time of use (another soundfont, room or codec) makes features less sure; one that only ever met
    the features that an adapter was taught by would take all of them at their word.

    Args:
        features: the source.
        statistics: of the training tracks.
        noise: at most so many standard deviations of noise.
        dropout: at most this share of the numbers replaced by the mean.
    """

    def __init__(self, features: Features, statistics: FeatureStatistics, *, noise: float, dropout: float) -> None:
        self._features, self._statistics = features, statistics
        self._noise, self._dropout = noise, dropout

    def of(self, example: Example, *, rng: random.Random | None = None) -> torch.Tensor:
        """Give the features (L, D) of an example, rougher where a source of randomness is given."""
        features = self._features.of(example, rng=rng)
        if rng is None:
            return features
        amount, generator = rng.random(), torch.Generator().manual_seed(rng.getrandbits(63))
        return augment_features(
            features, self._statistics, noise=amount * self._noise, dropout=amount * self._dropout, generator=generator
        )
