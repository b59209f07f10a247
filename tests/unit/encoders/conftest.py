"""Tiny random MERTs in the file formats of the real ones, made by transformers itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel

from mu_llama.audio.waveform import Waveform

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "do_stable_layer_norm": True,
    "mask_time_prob": 0.05,
}
OLD_SPELLING = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


def old_spelling(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name the weight norm as published files do."""
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in OLD_SPELLING.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    return renamed


class TinyMert:
    """A random model, its config.json as MERT writes it, and its tensors."""

    def __init__(self, **settings: Any) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = HubertModel(HubertConfig(**(TINY | settings))).eval()
            for parameter in self.model.parameters():
                # Norm weights and biases start at 1 and 0, where mistakes don't show.
                parameter.data += 0.1 * torch.randn_like(parameter)
        self.config = TINY | settings | {"model_type": "mert_model", "attention_relax": -1.0, "deepnorm": False}
        self.tensors = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def save(self, folder: Path, tensors: dict[str, torch.Tensor] | None = None) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        (folder / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 24000}')
        save_file(tensors or self.tensors, folder / "model.safetensors")
        return folder


@pytest.fixture
def tiny_mert() -> Callable[..., TinyMert]:
    return TinyMert


@pytest.fixture
def make_old_spelling() -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return old_spelling


@pytest.fixture
def sound() -> Waveform:
    samples = np.random.default_rng(7).standard_normal(6000).astype(np.float32) * 0.1 + 0.02
    return Waveform(samples.astype(np.float32), 24000)
