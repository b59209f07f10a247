"""Conditioning in numpy against the torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from mu_llama.engine.onnx.conditioning import Conditioner
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.errors import CheckpointError
from mu_llama.model.adapter import AudioAdapter
from mu_llama.model.conditioning import LayerConditioner
from mu_llama.model.config import AdapterConfig
from tests.unit.engine.onnx.tiny import InMemory, Sizes, engine_of, random_ids, random_llama

CONDITIONED = AdapterConfig(
    num_encoder_layers=3, encoder_width=20, hidden_size=48, num_conditioned_layers=2, num_heads=6, bridge_width=40,
    num_blocks=2,
)  # fmt: skip
SIZES = {
    "terms": CONDITIONED,
    "legacy bridge": AdapterConfig(**{**vars(CONDITIONED), "legacy_bridge": True}),
    "standardised": AdapterConfig(**{**vars(CONDITIONED), "input_scaling": "standardise"}),
    "tokens": AdapterConfig(**{**vars(CONDITIONED), "num_conditioned_layers": 0, "num_audio_tokens": 7}),
    "tokens with choices": AdapterConfig(
        **{**vars(CONDITIONED), "num_conditioned_layers": 0, "num_audio_tokens": 9, "num_choices": 3,
           "input_scaling": "standardise"}
    ),
}  # fmt: skip


def random_module(module: torch.nn.Module, *, seed: int = 0) -> torch.nn.Module:
    source = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        torch.nn.init.normal_(value, std=0.5, generator=source)
        if "deviation" in name:
            value.abs_().add_(0.5)
        if name.endswith("members"):
            value.copy_((value > 0).float())
            value[:, 0] = 1
    return module.requires_grad_(False)


def mu_llama(config: AdapterConfig, sizes: Sizes, *, rank: int | None = None) -> MuLlama:
    conditioner = LayerConditioner(
        config.num_conditioned_layers, config.hidden_size, num_heads=6, head_width=sizes.head_dim,
        value_lora=None if rank is None else (rank, sizes.num_key_value_heads * sizes.head_dim),
    )  # fmt: skip
    return MuLlama(
        random_llama(sizes), adapter=random_module(AudioAdapter(config)), conditioner=random_module(conditioner, seed=1)
    ).eval()


def tensors_of_adapter(model: MuLlama, dtype: Any = np.float32) -> dict[str, InMemory]:
    return {
        name: InMemory(value.numpy().astype(dtype if ".blocks." in name and value.ndim == 2 else np.float32))
        for name, value in model.state_dict().items()
        if not name.startswith("llama.")
    }


def make_conditioner(model: MuLlama, sizes: Sizes, tensors: Mapping[str, InMemory] | None = None) -> Conditioner:
    projections = [projection.weight.numpy() for projection in model.value_projections()]
    return Conditioner(
        model.adapter.config, tensors_of_adapter(model) if tensors is None else tensors,
        value_projection=projections.__getitem__, head_width=sizes.head_dim,
    )  # fmt: skip


def features(config: AdapterConfig) -> np.ndarray:
    shape = (config.num_encoder_layers, config.encoder_width)
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)
def test_conditioning_is_that_of_the_torch_modules(config: AdapterConfig) -> None:
    sizes = Sizes(attention_bias=True)  # the projection's bias isn't part of it
    model = mu_llama(config, sizes)
    conditioner = make_conditioner(model, sizes)
    expected = model.condition(torch.from_numpy(features(config))[None])[0].numpy()
    for _ in range(2):  # read from its files, and kept
        came = conditioner.condition(features(config))
        assert came.dtype == np.float32
        np.testing.assert_allclose(came, expected, atol=2e-5, rtol=2e-5)


def test_a_merged_lora_is_taken_off() -> None:
    config, sizes = SIZES["terms"], Sizes()
    model = mu_llama(config, sizes, rank=4)
    expected = model.condition(torch.from_numpy(features(config))[None])[0].numpy()
    np.testing.assert_allclose(make_conditioner(model, sizes).condition(features(config)), expected, atol=1e-4)


def test_neighbours_are_blended_in() -> None:
    config, sizes = SIZES["terms"], Sizes()
    model = mu_llama(config, sizes)
    expected = model.condition(torch.from_numpy(features(config))[None], blend=lambda unit: unit[:, ::-1].copy())[
        0
    ].numpy()
    came = make_conditioner(model, sizes).condition(features(config), blend=lambda unit: unit[:, ::-1])
    np.testing.assert_allclose(came, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_matrices_are_widened(dtype: Any) -> None:
    config, sizes = SIZES["terms"], Sizes()
    model = mu_llama(config, sizes)
    tensors = tensors_of_adapter(model, dtype)
    for name, tensor in tensors.items():
        model.get_parameter(name).copy_(torch.from_numpy(tensor.value.astype(np.float32)))
    expected = model.condition(torch.from_numpy(features(config))[None])[0].numpy()
    came = make_conditioner(model, sizes, tensors).condition(features(config))
    np.testing.assert_allclose(came, expected, atol=2e-5, rtol=2e-5)


def test_far_away_logits_do_not_overflow() -> None:
    config, sizes = SIZES["tokens with choices"], Sizes()
    model = mu_llama(config, sizes)
    model.adapter.tokens.reading.weight.mul_(1e4)
    expected = model.condition(torch.from_numpy(features(config))[None])[0].numpy()
    with np.errstate(over="raise", invalid="raise"):
        came = make_conditioner(model, sizes).condition(features(config))
    np.testing.assert_allclose(came, expected, atol=2e-5, rtol=2e-5)


def test_features_of_another_encoder_are_refused() -> None:
    model = mu_llama(SIZES["terms"], Sizes())
    with pytest.raises(CheckpointError, match="gives 1 layers of width 5; this adapter was made for 3 of 20"):
        make_conditioner(model, Sizes()).condition(np.zeros((1, 5), np.float32))


def test_a_missing_weight_is_named() -> None:
    model = mu_llama(SIZES["terms"], Sizes())
    tensors = tensors_of_adapter(model)
    del tensors["adapter.blocks.1.up.weight"]
    with pytest.raises(CheckpointError, match=r"'adapter.blocks.1.up.weight' is missing"):
        make_conditioner(model, Sizes(), tensors).condition(features(SIZES["terms"]))


@pytest.mark.parametrize("sizes", [Sizes(), Sizes(head_dim=24, attention_bias=True)], ids=["heads of 16", "of 24"])
@pytest.mark.parametrize("kind", ["terms", "tokens with choices"])
def test_logits_about_a_track_are_those_of_torch(tmp_path: Path, kind: str, sizes: Sizes) -> None:
    config = SIZES[kind]
    model = mu_llama(config, sizes)
    engine = engine_of(
        tmp_path, model.llama, sizes, num_conditioned_layers=config.num_conditioned_layers,
        num_audio_tokens=config.num_audio_tokens,
    )  # fmt: skip
    conditioner = Conditioner(
        config, tensors_of_adapter(model), value_projection=engine.value_projection, head_width=sizes.head_dim
    )
    ids, track = random_ids(30), features(config)
    with torch.inference_mode():
        conditioning = model.condition(torch.from_numpy(track)[None])
        expected = model(torch.tensor([ids]), conditioning=conditioning)[0, -30:].numpy()
        without = model(torch.tensor([ids]), conditioning=None)[0].numpy()
    assert np.abs(expected - without).max() > 0.1
    np.testing.assert_allclose(engine.logits(ids, conditioning=conditioner.condition(track)), expected, atol=2e-4)
    np.testing.assert_allclose(engine.logits(ids), without, atol=1e-4)
