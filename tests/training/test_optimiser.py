"""Parameter groups: what decays, and a rate for each part."""

from __future__ import annotations

import pytest
import torch

from mu_llama.errors import ConfigError
from mu_llama.training.collate import AnswerLoss
from mu_llama.training.optimizer import build_optimiser, parameter_groups, set_rates
from mu_llama.training.phases import JOINT
from mu_llama.training.trainable import build_trainable
from tests.training.tiny import tiny_parts


def test_each_part_has_its_rate() -> None:
    model = build_trainable(tiny_parts(), phase=JOINT)
    for wrapped in (model, AnswerLoss(model)):
        groups = parameter_groups(wrapped, rate=0.1, llama_rate=0.2, weight_decay=0.01)
        assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.0), (0.1, 0.01), (0.2, 0.01)]
        inside = {id(value) for value in model.llama.parameters()}
        assert all(id(value) in inside for value in groups[2]["params"])
        num_trained = sum(value.requires_grad for value in model.parameters())
        assert sum(len(group["params"]) for group in groups) == num_trained


def test_rates_follow_their_peaks() -> None:
    optimiser = build_optimiser(build_trainable(tiny_parts(), phase=JOINT), rate=0.1, llama_rate=0.2)
    for factor in (0.5, 0.25):
        set_rates(optimiser, factor)
        assert [group["lr"] for group in optimiser.param_groups] == [0.1 * factor, 0.1 * factor, 0.2 * factor]


def test_nothing_to_train() -> None:
    with pytest.raises(ConfigError, match="frozen"):
        parameter_groups(torch.nn.Linear(2, 2).requires_grad_(False), rate=0.1, weight_decay=0.0)
