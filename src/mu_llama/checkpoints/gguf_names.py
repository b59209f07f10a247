"""What GGUF calls a LLaMA's tensors, and how it stores LLaMA-3.1's rotary angles."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ROPE_FACTORS = "rope_freqs.weight"
"""Divides the angle of each rotary pair, (head width / 2,)."""
OUTPUT = "output.weight"
"""Left out of a file where it is tied to the input embedding."""
_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    OUTPUT: "lm_head.weight",
}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_FEED_FORWARD = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def weight_names(num_layers: int) -> dict[str, str]:
    """Map GGUF's names of the weights to transformers'."""
    modules = _NORMS | _ATTENTION | _FEED_FORWARD
    return _TOP | {
        f"blk.{layer}.{own}.weight": f"model.layers.{layer}.{module}.weight"
        for layer in range(num_layers)
        for own, module in modules.items()
    }


def bias_names(num_layers: int, *, attention: bool, feed_forward: bool) -> dict[str, str]:
    """Map GGUF's names of the biases, which a LLaMA may have, to transformers'."""
    modules = (_ATTENTION if attention else {}) | (_FEED_FORWARD if feed_forward else {})
    return {
        f"blk.{layer}.{own}.bias": f"model.layers.{layer}.{module}.bias"
        for layer in range(num_layers)
        for own, module in modules.items()
    }


def rotary_heads(name: str, config: LlamaConfig) -> int | None:
    """Count the heads whose rows are stored in rotary order in this tensor of GGUF's; None for all others."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    return next((count for own, count in heads.items() if f".{own}." in name), None)


def llama3_parameters(factor: float) -> dict[str, object]:
    """Give the `rope_parameters` that every LLaMA-3.1 to 3.3 has, but for the base."""
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def llama3_factors(config: LlamaConfig) -> Tensor:
    """Compute what `rope_freqs.weight` is for a config of rope type llama3.

    Returns:
        (head width / 2,) in float32: unscaled over scaled angle.
    """
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](copy.deepcopy(config), torch.device("cpu"))
    pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
    unscaled = config.rope_parameters["rope_theta"] ** (-pairs / config.head_dim)
    factors: Tensor = unscaled / scaled
    return factors
