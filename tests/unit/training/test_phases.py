"""Phases train what their table says, and a pattern for nothing is an error."""

from __future__ import annotations

import dataclasses

import pytest

from mu_llama.errors import ConfigError
from mu_llama.training.phases import (
    FINETUNE,
    JOINT,
    LORA,
    PHASES,
    PRETRAIN,
    Phase,
    phase_by_name,
    plain_name,
    select_trainable,
)
from mu_llama.training.trainable import build_trainable
from tests.factories.llama import LAYERS, tiny_parts


def test_pretrain_trains_the_adapter_alone() -> None:
    model = build_trainable(tiny_parts(), phase=PRETRAIN)
    names = select_trainable(model, PRETRAIN)
    assert set(names) == {name for name, _ in model.named_parameters() if not name.startswith("llama.")}
    assert not any("lora" in name or "bias" in name for name, _ in model.llama.named_parameters())


def test_finetune_trains_norms_biases_and_lora_of_the_llama() -> None:
    model = build_trainable(tiny_parts(), phase=FINETUNE)
    names = {plain_name(name) for name in select_trainable(model, FINETUNE)}
    kinds = {
        "norm.weight": 2 * LAYERS + 1,
        ".bias": 5 * LAYERS,
        "lora_A.weight": 7 * LAYERS,
        "lora_B.weight": 7 * LAYERS,
    }
    assert {end: sum(name.endswith(end) for name in names) for end in kinds} == kinds
    assert len(names) == sum(kinds.values())
    assert not any(".k_proj.bias" in name or ".v_proj.bias" in name for name in names)


def test_lora_leaves_the_adapter_alone() -> None:
    names = {plain_name(name) for name in select_trainable(build_trainable(tiny_parts(), phase=LORA), LORA)}
    assert len(names) == 14 * LAYERS
    assert all(".lora_A." in name or ".lora_B." in name for name in names)


def test_joint_trains_adapter_and_lora() -> None:
    model = build_trainable(tiny_parts(), phase=JOINT)
    names = select_trainable(model, JOINT)
    assert sum("lora_" in name for name in names) == 14 * LAYERS
    assert {name for name in names if "lora_" not in name} == set(select_trainable(model, PRETRAIN))


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_exactly_what_is_selected_needs_gradients(phase) -> None:
    model = build_trainable(tiny_parts(), phase=phase)
    assert [name for name, value in model.named_parameters() if value.requires_grad] == select_trainable(model, phase)


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_traits_follow_from_what_is_trained(phase) -> None:
    names = select_trainable(build_trainable(tiny_parts(), phase=phase), phase)
    assert phase.trains_adapter == any(not name.startswith("llama.") for name in names)
    assert phase.trains_llama == any(name.startswith("llama.") for name in names)


@pytest.mark.parametrize(
    ("pattern", "traits"),
    [("conditioner.gate", (True, False)), ("llama.*norm.weight", (False, True)), ("adapt*", (True, False)),
     ("*norm.weight", (True, True))],
)  # fmt: skip
def test_traits_of_another_phase(pattern: str, traits: tuple[bool, bool]) -> None:
    phase = Phase("own", (pattern,))
    assert (phase.trains_adapter, phase.trains_llama) == traits


def test_a_pattern_for_nothing_is_an_error_with_the_nearest_names() -> None:
    model = build_trainable(tiny_parts(), phase=PRETRAIN)
    odd = dataclasses.replace(PRETRAIN, trains=("conditioner.gates",))
    with pytest.raises(ConfigError, match=r"'conditioner.gates'.*nearest: conditioner.gate"):
        select_trainable(model, odd)
    with pytest.raises(ConfigError, match=r"'finetune' trains '.*', which matches no parameter"):
        select_trainable(model, FINETUNE)
    with pytest.raises(ConfigError, match="expected one of: pretrain, finetune, joint"):
        phase_by_name("pretrane")
