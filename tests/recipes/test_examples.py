"""Weights that make yes and no count the same, and the loss of choosing among names."""

from __future__ import annotations

import pytest
import torch

from recipes.mini.examples import Examples, choice_losses, choice_weights, weights_of


def test_yes_and_no_weigh_the_same_within_each_source() -> None:
    answers = torch.tensor([[1.0], [0.0], [0.0], [0.0], [1.0], [torch.nan]])
    sources = ["a", "a", "a", "a", "b", "b"]
    weights = weights_of(Examples(torch.zeros(6, 1, 1), answers, sources, ["drums"]))[:, 0]
    assert float(weights[0]) == pytest.approx(float(weights[1:4].sum()))
    assert 0 < float(weights[4]) < 0.1
    assert float(weights[5]) == 0


def test_music_and_noise_are_evened_over_all() -> None:
    answers = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    weights = weights_of(Examples(torch.zeros(4, 1, 1), answers, ["a", "b", "c", "n"], ["music"]))[:, 0]
    assert float(weights[:3].sum()) == pytest.approx(float(weights[3]))


def test_choosing_counts_names_that_hold_among_those_known() -> None:
    unknown = float("nan")
    logits = torch.tensor([[2.0, 0.0, 9.0], [1.0, 1.0, 0.0], [5.0, 5.0, 5.0]], requires_grad=True)
    answers = torch.tensor([[1.0, 0.0, unknown], [1.0, 1.0, 0.0], [0.0, unknown, 0.0]])
    losses = choice_losses(logits, answers)
    losses.sum().backward()
    several = torch.log(2 * torch.tensor(1.0).exp() + 1) - torch.log(2 * torch.tensor(1.0).exp())
    torch.testing.assert_close(losses, torch.tensor([torch.tensor(-2.0).exp().log1p().item(), several.item(), 0.0]))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[2].any()


def test_sets_of_names_that_hold_count_the_same_within_a_kind_of_music() -> None:
    answers = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    examples = Examples(torch.zeros(6, 1, 1), answers, ["a"] * 5 + ["b"], ["folk", "rock"])
    weights = choice_weights(examples, torch.tensor([True, True]))
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0, 0.0, 1.0]))
