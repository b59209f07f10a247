"""The loss against the plain computation over all logits."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mu_llama.training.collate import IGNORED, AnswerLoss, answer_loss
from mu_llama.training.phases import PHASES, Phase
from mu_llama.training.trainable import build_trainable
from tests.training.tiny import tiny_batch, tiny_parts


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_it_equals_the_plain_computation_with_a_mask(phase: Phase) -> None:
    model, batch = build_trainable(tiny_parts(), phase=phase).train(), tiny_batch(rows=3)
    logits = model(batch.ids, conditioning=model.condition(batch.features), attention_mask=batch.mask)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED
    )
    expected.backward()
    wanted = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    model.zero_grad()
    loss = AnswerLoss(model)(batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for name, gradient in wanted.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_no_target_gives_gradients_of_zero(phase: Phase) -> None:
    model, batch = build_trainable(tiny_parts(), phase=phase), tiny_batch()
    loss = answer_loss(model, dataclasses.replace(batch, labels=torch.full_like(batch.labels, IGNORED)))
    loss.backward()
    assert loss.item() == 0.0
    for name, value in model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, name
            assert not value.grad.any(), name


def test_padding_changes_nothing() -> None:
    model, batch = build_trainable(tiny_parts(), phase=PHASES["joint"]), tiny_batch(rows=1)
    wider = dataclasses.replace(
        batch,
        ids=torch.nn.functional.pad(batch.ids, (0, 5)),
        labels=torch.nn.functional.pad(batch.labels, (0, 5), value=IGNORED),
    )
    assert answer_loss(model, wider).item() == pytest.approx(answer_loss(model, batch).item(), abs=1e-6)
