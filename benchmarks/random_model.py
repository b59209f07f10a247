"""Models of given sizes with random weights: nothing is read from a disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from transformers import HubertModel

from mu_llama.arrays import BFLOAT16, FLOAT32, Array, DType
from mu_llama.checkpoints.fit import llama_shapes
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.spec import EncoderSpec, LlamaSpec, ModelSpec, TokenizerFile
from mu_llama.encoders.mert.config import PUBLISHED_CONFIGS, parse_mert_config
from mu_llama.encoders.mert.encoder import MertEncoder
from mu_llama.model.config import AdapterConfig, LlamaConfig
from mu_llama.text.prompts import ALPACA
from mu_llama.training.initialization import fresh_adapter

_STD = 0.02
_NOISE_NUMBERS = 2**22 - 3  # no multiple of a width, so that rows differ
_CONTEXT = 2048


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a LLaMA and of the adapter beside it."""

    vocabulary: int
    """Tokens."""
    hidden: int
    """H."""
    inner: int
    """Width of the feed-forward layers."""
    layers: int
    """Of the LLaMA."""
    heads: int
    """Attention heads."""
    key_value_heads: int
    """Heads of keys and values."""
    conditioned: int
    """Q."""
    bridge: int
    """Inner width of the adapter's blocks."""
    encoder: tuple[int, int]
    """L and D of the features."""

    def llama(self) -> LlamaConfig:
        """As our settings."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            head_dim=self.hidden // self.heads,
            max_position_embeddings=_CONTEXT,
        )

    def adapter(self) -> AdapterConfig:
        """As our settings."""
        return AdapterConfig(
            num_encoder_layers=self.encoder[0],
            encoder_width=self.encoder[1],
            hidden_size=self.hidden,
            num_conditioned_layers=self.conditioned,
            num_heads=self.heads,
            bridge_width=self.bridge,
        )


LLAMA_7B = ModelSizes(32000, 4096, 11008, 32, 32, 32, conditioned=20, bridge=16384, encoder=(25, 1024))
"""The published system's."""
LLAMA_135M = ModelSizes(49152, 576, 1536, 30, 9, 3, conditioned=24, bridge=1152, encoder=(1, 753))
"""SmolLM2-135M's, with an adapter over MusiCNN."""
LLAMA_TINY = ModelSizes(64, 64, 128, 1, 4, 2, conditioned=1, bridge=128, encoder=(2, 7))
"""For tests."""
MERT_330M: Mapping[str, object] = PUBLISHED_CONFIGS["MERT-v1-330M"]
"""The published system's encoder."""
MERT_TINY: Mapping[str, object] = PUBLISHED_CONFIGS["MERT-v1-330M"] | {
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}
"""For tests."""


def random_spec(sizes: ModelSizes, *, narrow_bridge: bool) -> ModelSpec:
    """Describe a model whose bf16 LLaMA and adapter are made when they are read.

    Args:
        sizes: of the model.
        narrow_bridge: the adapter's matrices in bf16, as for answering; else in float32, as for training.
    """
    config = sizes.llama()
    llama = {name: _random(name, shape, BFLOAT16) for name, shape in llama_shapes(config).items()}
    adapter = {}
    for name, stored in fresh_adapter(sizes.adapter(), seed=0).items():
        is_matrix = name.startswith("adapter.") and len(stored.shape) == 2
        dtype = BFLOAT16 if narrow_bridge and is_matrix else FLOAT32
        adapter[name] = _random(name, stored.shape, dtype)
    return ModelSpec(
        name="random",
        llama=LlamaSpec(config, llama, TokenizerFile("tokenizer.json", "nowhere", bytes), source="random weights"),
        tuning={},
        adapter_config=sizes.adapter(),
        adapter=adapter,
        template=ALPACA,
        encoder=EncoderSpec({"kind": "mert"}),
        source="random weights",
    )


def size_bytes(spec: ModelSpec) -> int:
    """Bytes of all weights of a model."""
    return sum(stored.size_bytes for stored in (*spec.llama.tensors.values(), *spec.adapter.values()))


def random_mert(config: Mapping[str, object], device: torch.device, dtype: torch.dtype) -> MertEncoder:
    """Make a MERT of random weights on a device."""
    parsed = parse_mert_config(config)
    with torch.device(device):
        model = HubertModel(parsed.to_hubert())
    return MertEncoder(model.to(dtype), parsed)


def _random(name: str, shape: tuple[int, ...], dtype: DType) -> LazyTensor:
    """A tensor of repeated noise, which is written faster than as many numbers are drawn."""

    def make() -> Array:
        if name.endswith("norm.weight"):
            return np.ones(shape, dtype)
        return np.resize(_noise().astype(dtype), shape)

    return LazyTensor(shape, dtype, make)


@cache
def _noise() -> Array:
    return np.random.default_rng(0).normal(scale=_STD, size=_NOISE_NUMBERS).astype(np.float32)
