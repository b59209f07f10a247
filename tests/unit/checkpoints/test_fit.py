"""The shapes that a model's sizes ask for are those of its modules; what doesn't fit is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mu_llama.checkpoints.fit import adapter_shapes, check_parts, llama_shapes
from mu_llama.checkpoints.lazy_tensor import zeros
from mu_llama.engine.torch.llama import build_mu_llama
from mu_llama.errors import CheckpointError
from tests.factories.llama import SIZES, tiny_parts

ADAPTERS = {
    "terms": SIZES,
    "legacy": replace(SIZES, legacy_bridge=True, input_scaling="standardise"),
    "tokens": replace(SIZES, num_conditioned_layers=0, num_audio_tokens=5),
    "choices": replace(SIZES, num_conditioned_layers=0, num_audio_tokens=7, num_choices=2),
}


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ADAPTERS)
def test_shapes_are_those_of_the_modules(name: str, bias: bool, rank: int | None) -> None:
    llama = replace(tiny_parts().llama.config, attention_bias=bias, mlp_bias=bias)
    model = build_mu_llama(llama, ADAPTERS[name], dtype=torch.float32, value_lora_rank=rank)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    shapes = {f"llama.{key}": shape for key, shape in llama_shapes(llama).items()}
    assert shapes | adapter_shapes(ADAPTERS[name], llama, value_lora_rank=rank) == expected


def test_what_does_not_fit_is_named() -> None:
    parts = tiny_parts(tied=True)
    check_parts(parts)
    norm = "model.norm.weight"
    short = {**parts.llama.tensors, norm: zeros((3,), parts.llama.tensors[norm].dtype)}
    with pytest.raises(CheckpointError, match=r"a LLaMA: 'model.norm.weight' has shape \(3,\); expected \(24,\)"):
        check_parts(replace(parts, llama=replace(parts.llama, tensors=short)))
    without = {name: value for name, value in parts.adapter.items() if name != "conditioner.gate"}
    with pytest.raises(CheckpointError, match=r"tiny: 'conditioner.gate' missing"):
        check_parts(replace(parts, adapter=without))
    more = {**parts.adapter, "conditioner.gates": parts.adapter["conditioner.gate"]}
    with pytest.raises(CheckpointError, match=r"nearest known: 'conditioner.gate'"):
        check_parts(replace(parts, adapter=more))
