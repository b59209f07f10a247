"""Parameter groups, and the learning rate by updates; the published ones are in tests/golden."""

from __future__ import annotations

import itertools

import pytest
import torch

from mu_llama.errors import ConfigError
from mu_llama.training.collate import AnswerLoss
from mu_llama.training.optimizer import (
    build_optimizer,
    parameter_groups,
    published_lr,
    set_lrs,
    update_factor,
    update_time,
)
from mu_llama.training.phases import JOINT
from mu_llama.training.trainable import build_trainable
from tests.factories.llama import tiny_parts


def test_each_part_has_its_rate() -> None:
    model = build_trainable(tiny_parts(), phase=JOINT)
    for wrapped in (model, AnswerLoss(model)):
        groups = parameter_groups(wrapped, lr=0.1, llama_lr=0.2, weight_decay=0.01)
        assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.0), (0.1, 0.01), (0.2, 0.01)]
        inside = {id(value) for value in model.llama.parameters()}
        assert all(id(value) in inside for value in groups[2]["params"])
        num_trained = sum(value.requires_grad for value in model.parameters())
        assert sum(len(group["params"]) for group in groups) == num_trained


def test_rates_follow_their_peaks() -> None:
    optimizer = build_optimizer(build_trainable(tiny_parts(), phase=JOINT), lr=0.1, llama_lr=0.2)
    for factor in (0.5, 0.25):
        set_lrs(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1 * factor, 0.1 * factor, 0.2 * factor]


def test_nothing_to_train() -> None:
    with pytest.raises(ConfigError, match="frozen"):
        parameter_groups(torch.nn.Linear(2, 2).requires_grad_(False), lr=0.1, weight_decay=0.0)


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
    assert published_lr(30.0, peak=1.0, minimum=0.1, warmup=1, total=20) == pytest.approx(0.1)


def test_the_rate_changes_only_with_an_update() -> None:
    times = [update_time(2, index, num_in_epoch=7, per_update=3) for index in range(7)]
    assert times == [2.0, 2.0, 2.0, 2 + 3 / 7, 2 + 3 / 7, 2 + 3 / 7, 2 + 6 / 7]
