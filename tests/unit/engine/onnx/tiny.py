"""Tiny random LLaMAs for transformers and as tensors that a graph is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from mu_llama.engine.onnx.description import GraphOptions
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.onnx.graph import build_graph

VOCABULARY = 67


@dataclass
class Sizes:
    """What `build_graph` takes from a config."""

    vocab_size: int = VOCABULARY
    hidden_size: int = 48
    intermediate_size: int = 80
    num_hidden_layers: int = 3
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 16
    max_position_embeddings: int = 300
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False


@dataclass
class InMemory:
    """A tensor as a graph is built from it."""

    value: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def read(self) -> NDArray[Any]:
        return self.value.copy()


def random_llama(sizes: Sizes, *, seed: int = 0, std: float = 0.3) -> LlamaForCausalLM:
    """A LLaMA whose logits differ enough for greedy tokens to be clear."""
    torch.manual_seed(seed)
    llama = LlamaForCausalLM(_config(sizes)).eval()
    for name, parameter in llama.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=std)
    return llama.requires_grad_(False)


def shapes_of(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in LlamaForCausalLM(_config(sizes)).state_dict().items()}


def _config(sizes: Sizes) -> LlamaConfig:
    numbers = dict(vars(sizes))
    scaling = {"rope_type": "default", **(numbers.pop("rope_scaling") or {}), "rope_theta": numbers.pop("rope_theta")}
    return LlamaConfig(**numbers, rope_parameters=scaling, pad_token_id=None)


def tensors_of(llama: LlamaForCausalLM) -> dict[str, InMemory]:
    skipped = {"lm_head.weight"} if llama.config.tie_word_embeddings else set()
    return {name: InMemory(value.numpy()) for name, value in llama.state_dict().items() if name not in skipped}


def engine_of(
    folder: Path, llama: LlamaForCausalLM, sizes: Sizes, *, num_audio_tokens: int = 0, **options: Any
) -> OnnxEngine:
    """Build a graph, in fp32 unless `options` say otherwise, and open it on one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    build_graph(folder, sizes, tensors_of(llama), options=GraphOptions(**{"precision": "fp32", **options}))
    return OnnxEngine(folder, num_audio_tokens=num_audio_tokens, num_threads=1)


def random_ids(num: int, *, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, num).tolist()


def expected_logits(llama: LlamaForCausalLM, ids: list[int]) -> NDArray[np.float32]:
    """(T, V)."""
    with torch.inference_mode():
        return llama(torch.tensor([ids])).logits[0].float().numpy()


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Smallest cosine of two rows of logits (T, V)."""
    products = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    return float(products.min())
