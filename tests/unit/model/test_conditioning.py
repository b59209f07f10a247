"""Conditioning against a slow, written-out oracle, on a grouped-query LLaMA whose heads are not hidden/heads wide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mu_llama import devices
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.errors import ConfigError
from mu_llama.model import conditioning
from mu_llama.model.config import AdapterConfig
from mu_llama.model.retrieval import BlendOptions, NeighbourBlend
from tests.factories.models import CONDITIONED, HEAD_WIDTH, HEADS, KEY_VALUE_HEADS, LAYERS, make_model


def written_out(model: MuLlama, features: torch.Tensor) -> torch.Tensor:
    """tanh(gate) * Wv (audio + prefix), head by head."""
    audio = model.adapter(features)
    out = torch.zeros(len(features), CONDITIONED, HEADS, HEAD_WIDTH)
    for row in range(len(features)):
        for q in range(CONDITIONED):
            layer = model.llama.model.layers[LAYERS - CONDITIONED + q]
            value = layer.self_attn.v_proj.weight @ (audio[row] + model.conditioner.prefix[q])
            for head in range(HEADS):
                group = head // (HEADS // KEY_VALUE_HEADS)
                part = value[group * HEAD_WIDTH : (group + 1) * HEAD_WIDTH]
                out[row, q, head] = torch.tanh(model.conditioner.gate[q, head]) * part
    return out.flatten(2)


@torch.inference_mode()
def test_conditioning_equals_the_formula() -> None:
    model = make_model()
    features = torch.randn(3, 2, 7)
    torch.testing.assert_close(model.condition(features), written_out(model, features), atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_it_enters_before_the_output_projection_of_the_last_layers() -> None:
    model = make_model()
    ids = torch.randint(0, 50, (2, 9))
    conditioning = model.condition(torch.randn(2, 2, 7))
    actual = model(ids, conditioning=conditioning)
    handles = []
    for q in range(CONDITIONED):  # the oracle: add to the input of o_proj with a hook
        projection = model.llama.model.layers[LAYERS - CONDITIONED + q].self_attn.o_proj
        term = conditioning[:, q][:, None]
        handles.append(projection.register_forward_pre_hook(lambda _, args, term=term: (args[0] + term,)))
    expected = model(ids, conditioning=None)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(actual, model(ids, conditioning=None), atol=1e-2)


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_word_looks_at_those_before_it_exactly_enough(monkeypatch: pytest.MonkeyPatch, is_slow: bool) -> None:
    monkeypatch.setattr(devices, "is_cpu_slow_at_bf16", lambda: is_slow)
    layer = make_model().llama.model.layers[-1].self_attn
    torch.manual_seed(1)
    query, (key, value) = torch.randn(2, HEADS, 1, HEAD_WIDTH).bfloat16(), torch.randn(2, 2, 2, 90, 8).bfloat16()
    mask = torch.ones(2, 1, 1, 90, dtype=torch.bool)
    mask[1, ..., :50] = False
    found, _ = conditioning.conditioned_attention(layer, query, key, value, mask, scaling=HEAD_WIDTH**-0.5)
    wide_key, wide_value = (x.double().repeat_interleave(HEADS // KEY_VALUE_HEADS, dim=1) for x in (key, value))
    scores = (query.double() @ wide_key.mT * HEAD_WIDTH**-0.5).masked_fill(~mask, -torch.inf)
    exact = (scores.softmax(-1) @ wide_value).transpose(1, 2)
    assert found.dtype == torch.bfloat16
    assert found.shape == (2, 1, HEADS, HEAD_WIDTH)
    torch.testing.assert_close(found.double(), exact, atol=2**-9 if is_slow else 2**-7, rtol=2**-8)


@torch.inference_mode()
def test_rows_do_not_mix() -> None:
    model = make_model()
    ids = torch.randint(0, 50, (1, 6)).repeat(2, 1)
    features = torch.randn(2, 2, 7)
    both = model(ids, conditioning=model.condition(features))
    for row in range(2):
        alone = model(ids[:1], conditioning=model.condition(features[row : row + 1]))
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_adapter_through_checkpointing() -> None:
    model = make_model().train()
    ids, features = torch.randint(0, 50, (2, 6)), torch.randn(2, 2, 7)

    def gradient() -> torch.Tensor:
        model.zero_grad()
        model(ids, conditioning=model.condition(features)).square().mean().backward()
        assert model.adapter.projection.weight.grad is not None
        return model.adapter.projection.weight.grad.clone()

    plain = gradient()
    model.llama.activation_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(gradient(), plain, atol=1e-6, rtol=1e-4)
    assert plain.abs().sum() > 0


@torch.inference_mode()
def test_standardised_features_lose_mean_and_scale() -> None:
    model = make_model()
    features = torch.randn(2, 2, 7)
    plain = model.adapter.mix(features)
    model.adapter.feature_mean.fill_(3.0)
    model.adapter.feature_std.fill_(2.0)
    torch.testing.assert_close(model.adapter.mix(features * 2 + 3), plain, atol=1e-5, rtol=1e-5)


def test_neighbour_blend_of_a_batch_equals_row_by_row() -> None:
    index, own = (torch.nn.functional.normalize(torch.randn(rows, 5), dim=-1).numpy() for rows in (20, 4))
    blend = NeighbourBlend(index, BlendOptions(weight=0.3, num_neighbours=6))
    rows = np.concatenate([blend(row[None]) for row in own])
    np.testing.assert_allclose(blend(own), rows, rtol=1e-5, atol=1e-6)
    few = NeighbourBlend(index[:3], BlendOptions(weight=0.3, num_neighbours=100))  # fewer than asked for
    assert np.isfinite(few(own)).all()
    with pytest.raises(ConfigError, match="width 5"):
        blend(own[:, :4])


def test_bad_sizes_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"bridge_width=0.*num_blocks=-1"):
        AdapterConfig(
            num_encoder_layers=1, encoder_width=1, hidden_size=1, num_conditioned_layers=1, num_heads=1,
            bridge_width=0, num_blocks=-1,
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"weight=2.*num_neighbours=0"):
        BlendOptions(weight=2, num_neighbours=0)
