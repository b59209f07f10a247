"""Meta's and GGUF's names and rotary layouts of LLaMA weights, translated to Hugging Face's."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mu_llama.arrays import FLOAT32, Array
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.errors import CheckpointError
from mu_llama.model.config import LlamaConfig

_META_TOP = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
}
_META_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_META_PATTERN = re.compile(r"layers\.(?P<layer>\d+)\.(?P<module>[a-z_]+(?:\.[a-z_0-9]+)?)$")


@dataclass(frozen=True)
class MetaName:
    """A parsed name such as `layers.3.attention.wq.weight`."""

    module: str
    """Module without its layer, e.g. `attention.wq` or `norm`."""
    layer: int | None
    """Layer index, or None outside the layers."""
    kind: str
    """`weight` or `bias`."""

    @property
    def hugging_face(self) -> str:
        """The name transformers gives this tensor."""
        if self.layer is None:
            return f"{_META_TOP[self.module]}.{self.kind}"
        return f"model.layers.{self.layer}.{_META_LAYER[self.module]}.{self.kind}"


def parse_meta_name(name: str) -> MetaName | None:
    """Take a Meta name apart; None if it is no LLaMA weight or bias."""
    path, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if path in _META_TOP:
        return MetaName(path, None, kind)
    match = _META_PATTERN.fullmatch(path)
    if match is None or match["module"] not in _META_LAYER:
        return None
    return MetaName(match["module"], int(match["layer"]), kind)


def meta_name(module: str, layer: int, kind: str = "weight") -> str:
    """Write a Meta name, e.g. `layers.3.attention.wq.weight`."""
    return f"layers.{layer}.{module}.{kind}"


def interleaved_to_halves(rows: Array, num_heads: int) -> Array:
    """Reorder the rows of each head from rotary pairs (0,1),(2,3).. to halves, as transformers rotates.

    Args:
        rows: (num_heads * head width, ...): a weight, the outer half of a LoRA, or a bias.
        num_heads: query heads for wq, key-value heads for wk.

    Returns:
        An array of the same shape.
    """
    pairs = rows.reshape(num_heads, len(rows) // num_heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def halves_to_interleaved(rows: Array, num_heads: int) -> Array:
    """Undo `interleaved_to_halves`, as files of llama.cpp want it."""
    halves = rows.reshape(num_heads, 2, len(rows) // num_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def rotary_rows_reordered(value: LazyTensor, module: str, config: LlamaConfig, *, name: str) -> LazyTensor:
    """Reorder the rows of a query or key tensor as transformers wants them; others stay as they are.

    Args:
        value: (rows, ...).
        module: Meta's module name, e.g. `attention.wq`.
        config: of the LLaMA.
        name: for the error message.

    Raises:
        CheckpointError: if the number of rows isn't heads times head width.
    """
    heads = {"attention.wq": config.num_attention_heads, "attention.wk": config.num_key_value_heads}.get(module)
    return value if heads is None else rows_in_halves(value, heads, config, name=repr(name))


def from_meta_names(weights: Mapping[str, LazyTensor], config: LlamaConfig) -> dict[str, LazyTensor]:
    """Give weights under Meta's names transformers' names and row order.

    Args:
        weights: names that `parse_meta_name` takes.
        config: of the LLaMA.

    Raises:
        CheckpointError: if the number of rows of a rotary tensor isn't heads times head width.
    """
    tensors = {}
    for name, value in weights.items():
        parsed = parse_meta_name(name)
        assert parsed is not None, "checked when read"
        tensors[parsed.hugging_face] = rotary_rows_reordered(value, parsed.module, config, name=name)
    return tensors


def rows_in_halves(value: LazyTensor, heads: int, config: LlamaConfig, *, name: str) -> LazyTensor:
    """Reorder the rows of a rotary tensor when it is read, from pairs to halves.

    Raises:
        CheckpointError: if the number of rows isn't heads times head width.
    """
    if value.shape[0] != heads * config.head_dim:
        raise CheckpointError(
            f"{name} has shape {value.shape}; expected {heads * config.head_dim} rows ({heads} heads of "
            f"{config.head_dim})"
        )
    return value.map(lambda rows: interleaved_to_halves(rows, heads))


def count_layers(names: Iterable[str]) -> int:
    """Count the layers whose numbers appear in the names.

    Raises:
        CheckpointError: if there are none or some are missing.
    """
    layers = {int(match[1]) for name in names if (match := re.match(r"layers\.(\d+)\.", name))}
    if not layers or layers != set(range(len(layers))):
        raise CheckpointError(f"layers {sorted(layers)} came; expected all of 0..n: is a shard missing?")
    return len(layers)


def unknown_keys_message(path: object, unknown: Iterable[str], known: Iterable[str]) -> str:
    """Say which keys weren't expected, each with its nearest known one."""
    known = list(known)
    parts = []
    unknown = sorted(unknown)
    for name in unknown[:5]:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        parts.append(f"{name!r}" + (f" (nearest known: {near[0]!r})" if near else ""))
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    return f"{path}: unexpected keys {', '.join(parts)}{more}"


ROPE_FACTORS = "rope_freqs.weight"
"""Divides the angle of each rotary pair, (head width / 2,)."""
OUTPUT = "output.weight"
"""Left out of a file where it is tied to the input embedding."""
_GGUF_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    OUTPUT: "lm_head.weight",
}
_GGUF_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_GGUF_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_GGUF_FEED_FORWARD = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def weight_names(num_layers: int) -> dict[str, str]:
    """Map GGUF's names of the weights to transformers'."""
    modules = _GGUF_NORMS | _GGUF_ATTENTION | _GGUF_FEED_FORWARD
    return _GGUF_TOP | {
        f"blk.{layer}.{gguf_name}.weight": f"model.layers.{layer}.{module}.weight"
        for layer in range(num_layers)
        for gguf_name, module in modules.items()
    }


def bias_names(num_layers: int, *, attention: bool, feed_forward: bool) -> dict[str, str]:
    """Map GGUF's names of the biases, which a LLaMA may have, to transformers'."""
    modules = (_GGUF_ATTENTION if attention else {}) | (_GGUF_FEED_FORWARD if feed_forward else {})
    return {
        f"blk.{layer}.{gguf_name}.bias": f"model.layers.{layer}.{module}.bias"
        for layer in range(num_layers)
        for gguf_name, module in modules.items()
    }


def rotary_heads(name: str, config: LlamaConfig) -> int | None:
    """Count the heads whose rows are stored in rotary order in this tensor of GGUF's; None for all others."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    return next((count for gguf_name, count in heads.items() if f".{gguf_name}." in name), None)


def llama3_scaling(factor: float) -> dict[str, Any]:
    """Give the `rope_scaling` that every LLaMA-3.1 to 3.3 has."""
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def llama3_factors(config: LlamaConfig) -> Array:
    """Compute what `rope_freqs.weight` is for a config of rope type llama3.

    A rotary pair that turns once in `w` tokens turns `factor` times slower where `w` is above the original context over
    `low_freq_factor`, as before where it is below the context over `high_freq_factor`, and by a linear mix of the two
    frequencies between. Source: Meta's llama-models, `apply_scaling`.

    Returns:
        (head width / 2,) in float32: unscaled over scaled angle.
    """
    assert config.rope_scaling is not None, "asked for one of type llama3"
    factor, context, low, high = (
        float(config.rope_scaling[name])
        for name in ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    pairs = np.arange(0, config.head_dim, 2, dtype=np.float64)
    turns = context * config.rope_theta ** (-pairs / config.head_dim) / (2 * math.pi)  # in the original context
    unscaled = np.clip((turns - low) / (high - low), 0.0, 1.0)  # share of the unscaled frequency
    factors: Array = (1 / (unscaled + (1 - unscaled) / factor)).astype(FLOAT32)
    return factors
