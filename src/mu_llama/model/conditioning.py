"""Carry an audio vector into a stock LLaMA.

The audio is one vector per track, so what it adds to layer l, `tanh(gate_l) * Wv_l (audio + prefix_l)`, depends
neither on the token nor on its position: a tensor (B, Q, A), computed once per track, where A is heads times head
width. It travels as a keyword argument through transformers' own forward pass, which hands unknown keywords
down to the attention function; ours is the stock one plus one broadcast add. So no module is patched, no state
is kept between calls, threads can't mix their tracks, and gradient checkpointing sees the right tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mu_llama import devices

ATTENTION_NAME = "mu_llama_sdpa"


def conditioned_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    conditioning: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Scaled-dot-product attention, plus the audio's term in the layers that have one.

    Args:
        module: the attention layer, which knows its `layer_idx` and config.
        query: (B, heads, T, head width); `key` and `value` likewise with their own number of heads.
        key: see `query`.
        value: see `query`.
        attention_mask: as transformers' sdpa function takes it.
        conditioning: (B, Q, A) for the last Q layers, or None for no audio.
        kwargs: passed on to the stock function.

    Returns:
        Output (B, T, heads, head width) and no weights.
    """
    attend, dtype = ALL_ATTENTION_FUNCTIONS["sdpa"], query.dtype
    is_one_token = dtype == torch.bfloat16 and query.device.type == "cpu" and query.shape[2] == 1
    if is_one_token and devices.is_cpu_slow_at_bf16():
        # Single-token attention runs in float32: in bf16 it takes two to six times as long, more with a long prompt.
        query, key, value = query.float(), key.float(), value.float()
    output, weights = attend(module, query, key, value, attention_mask, **kwargs)
    output = output.to(dtype)
    if conditioning is not None:
        row = int(module.layer_idx) - int(module.config.num_hidden_layers) + conditioning.shape[1]
        if row >= 0:
            # (B, A) -> (B, 1, heads, head width): the same for every token
            term = conditioning[:, row].view(output.shape[0], 1, output.shape[2], output.shape[3])
            output = output + term.to(output.dtype)
    return output, weights


# Registering is idempotent and touches only transformers' own tables of functions.
AttentionInterface.register(ATTENTION_NAME, conditioned_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


class LayerConditioner(nn.Module):
    """The audio vector to one additive term for each conditioned layer.

    Holds `prefix` (Q, H), added to the audio vector of each layer, and `gate` (Q, heads), 0 where a layer
    ignores the audio. The value projections belong to the LLaMA and are passed in. Where a LoRA was merged into them,
    `value_lora_A` (Q, rank, H) and `value_lora_B` (Q, key-value heads * head width, rank) hold it, and what it adds
    is taken off again: the audio's path doesn't see it.

    Args:
        num_layers: Q.
        hidden_size: H.
        num_heads: attention heads.
        head_width: of one head.
        value_lora: shape (rank, rows of the value projection) of a merged LoRA, or None.
    """

    value_lora_A: Tensor  # noqa: N815 - the names that LoRA's halves have everywhere
    value_lora_B: Tensor  # noqa: N815

    def __init__(
        self,
        num_layers: int,
        hidden_size: int,
        *,
        num_heads: int,
        head_width: int,
        value_lora: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.head_width = head_width
        self.prefix = nn.Parameter(torch.zeros(num_layers, hidden_size))
        self.gate = nn.Parameter(torch.zeros(num_layers, num_heads))
        self.has_value_lora = value_lora is not None
        if value_lora is not None:
            rank, rows = value_lora
            self.register_buffer("value_lora_A", torch.zeros(num_layers, rank, hidden_size))
            self.register_buffer("value_lora_B", torch.zeros(num_layers, rows, rank))

    def forward(self, audio: Tensor, projections: list[nn.Module], dtype: torch.dtype) -> Tensor:
        """Compute `tanh(gate) * Wv (audio + prefix)` for every conditioned layer.

        Args:
            audio: (B, H).
            projections: Q value projections of the LLaMA, in layer order, on whatever devices they are.
            dtype: that they compute in.

        Returns:
            (B, Q, A) with A = heads * head width; value heads are repeated for grouped-query attention.
        """
        terms = []
        for layer, (prefix, gate, projection) in enumerate(zip(self.prefix, self.gate, projections, strict=True)):
            vector = audio + prefix
            value = _without_bias(projection, vector.to(dtype)).to(vector.device)
            if self.has_value_lora:
                value = value - (vector @ self.value_lora_A[layer].T @ self.value_lora_B[layer].T).to(dtype)
            terms.append(_gate_heads(value, gate, self.head_width))
        return torch.stack(terms, dim=1)


def _without_bias(projection: nn.Module, vector: Tensor) -> Tensor:
    """Apply a linear layer of any kind (plain, quantized, sharded, on another device) and leave its bias out."""
    gather = getattr(getattr(projection, "weight", None), "full_tensor", None)
    if gather is not None:  # sharded by FSDP, and its layer, whose forward pass would gather it, isn't running
        return nn.functional.linear(vector, gather())
    bias = getattr(projection, "bias", None)
    device = next((p.device for p in (*projection.parameters(), *projection.buffers())), vector.device)
    value: Tensor = projection(vector.to(device))
    return value if bias is None else value - bias


def _gate_heads(value: Tensor, gate: Tensor, head_width: int) -> Tensor:
    """Repeat key-value heads to all heads and scale each by tanh of its gate: (B, K*W) to (B, heads*W)."""
    value_heads = value.view(value.shape[0], -1, head_width)  # (B, K*W) -> (B, K, W)
    repeated = value_heads.repeat_interleave(gate.shape[0] // value_heads.shape[1], dim=1)  # (B, heads, W)
    return (repeated * torch.tanh(gate).to(value.dtype)[:, None]).flatten(1)
