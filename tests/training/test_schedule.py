"""Rates by updates; the published ones are in tests/golden."""

from __future__ import annotations

import itertools

import pytest

from mu_llama.training.optimizer import published_rate, update_factor, update_time


def test_factors_rise_and_fall() -> None:
    factors = [update_factor(update, warmup=10, total=100, minimum=0.1) for update in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert all(one < next_ for one, next_ in itertools.pairwise(factors[:10]))
    assert all(one > next_ for one, next_ in itertools.pairwise(factors[10:]))
    assert 0.1 < factors[-1] < 0.101
    assert factors[55] == pytest.approx(0.55)


def test_ends() -> None:
    assert update_factor(0, warmup=0, total=5) == 1.0
    assert update_factor(500, warmup=1, total=5, minimum=0.2) == pytest.approx(0.2)
    assert update_factor(5, warmup=5, total=5) == 1.0
    assert published_rate(30.0, peak=1.0, minimum=0.1, warmup=1, total=20) == pytest.approx(0.1)


def test_the_rate_changes_only_with_an_update() -> None:
    times = [update_time(2, index, num_in_epoch=7, per_update=3) for index in range(7)]
    assert times == [2.0, 2.0, 2.0, 2 + 3 / 7, 2 + 3 / 7, 2 + 3 / 7, 2 + 6 / 7]
