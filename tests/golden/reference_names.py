"""Our tensors under the reference's names, shapes and row order, written apart from the package's own table."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from transformers import LlamaConfig

BLOCK_PARTS = {"norm": "norm", "gate": "f1", "down": "f2", "up": "f3"}
LINEARS = {
    "self_attn.q_proj": ("attention", "wq"),
    "self_attn.k_proj": ("attention", "wk"),
    "self_attn.v_proj": ("attention", "wv"),
    "self_attn.o_proj": ("attention", "wo"),
    "mlp.gate_proj": ("feed_forward", "w1"),
    "mlp.down_proj": ("feed_forward", "w2"),
    "mlp.up_proj": ("feed_forward", "w3"),
}
NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
HALVES = {"lora_A.weight": "l1", "lora_B.weight": "l2"}


def reference_tensors(tensors: Mapping[str, torch.Tensor], config: LlamaConfig) -> dict[str, torch.Tensor]:
    """Rename trainable tensors (values or gradients); the one of gates becomes one for each conditioned layer.

    Args:
        tensors: under `plain_name`s.
        config: of the LLaMA.
    """
    named: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if name == "conditioner.gate":
            first = config.num_hidden_layers - len(value)
            for layer, gate in enumerate(value, start=first):
                named[f"llama.layers.{layer}.attention.gate"] = gate.reshape(1, -1, 1, 1)
        elif match := re.fullmatch(r"llama\.model\.layers\.(\d+)\.(\w+\.\w+)\.(lora_[AB]\.weight|bias)", name):
            part, linear = LINEARS[match[2]]
            kind = f"{linear}.bias" if match[3] == "bias" else f"lora_{linear}_{HALVES[match[3]]}.weight"
            named[f"llama.layers.{match[1]}.{part}.{kind}"] = reference_rows(value, linear, match[3], config)
        else:
            named[simple_name(name)] = value
    return named


def simple_name(name: str) -> str:
    """The reference's name of a tensor that is the same in both."""
    if match := re.fullmatch(r"adapter\.blocks\.(\d+)\.(\w+)\.(\w+)", name):
        return f"mu_mert_{BLOCK_PARTS[match[2]]}_{int(match[1]) + 1}.{match[3]}"
    if match := re.fullmatch(r"llama\.model\.layers\.(\d+)\.(\w+)\.weight", name):
        return f"llama.layers.{match[1]}.{NORMS[match[2]]}.weight"
    kind = name.rpartition(".")[2]
    return {
        "adapter.layer_mix": f"mu_mert_agg.{kind}",
        "adapter.projection": f"mu_mert_proj.{kind}",
        "conditioner": "prefix_query.weight",
        "llama.model.norm": "llama.norm.weight",
    }[name.rpartition(".")[0]]


def reference_rows(value: torch.Tensor, linear: str, kind: str, config: LlamaConfig) -> torch.Tensor:
    """Rows of query and key in the reference's rotary order: row 2i of a head is ours i, 2i + 1 is ours i + half."""
    if linear not in ("wq", "wk") or kind == "lora_A.weight":
        return value
    half = config.head_dim // 2
    within = torch.arange(config.head_dim) // 2 + half * (torch.arange(config.head_dim) % 2)
    heads = torch.arange(len(value) // config.head_dim)
    return value[(heads[:, None] * config.head_dim + within).flatten()]
