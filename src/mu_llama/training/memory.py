"""How much memory a run needs, by arithmetic, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mu_llama.engine.torch.llama import MuLlama
from mu_llama.training.collate import TokenizedRow
from mu_llama.training.config import TrainConfig

_FLOAT_BYTES = 4
_MOMENTS = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device, without the libraries' own."""

    weights: int
    """Frozen and trained."""
    gradients: int
    """Of what is trained, in float32."""
    optimizer: int
    """AdamW's two moments, in float32."""
    activations: int
    """What a forward pass keeps for the backward pass, and the logits, for the longest batch."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = {"weights": self.weights, "gradients": self.gradients, "optimiser": self.optimizer,
                 "activations": self.activations}  # fmt: skip
        sizes = " + ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
        return f"{self.total / 2**30:.2f} GiB = {sizes}"


def estimate_memory(
    model: MuLlama, config: TrainConfig, *, rows: Sequence[TokenizedRow], num_audio_tokens: int
) -> MemoryEstimate:
    """Add up what training holds in memory with its longest batch.

    Args:
        model: as `build_trainable` makes it.
        config: of the run.
        rows: to train on.
        num_audio_tokens: audio tokens before each row's text.
    """
    size = min(config.batch.size, len(rows))
    num_tokens = size * max(len(row.ids) for row in rows)
    num_tokens = min(num_tokens, config.batch.max_tokens or num_tokens) + size * num_audio_tokens
    num_targets = sum(sorted((row.num_target_tokens for row in rows), reverse=True)[:size])
    weights = sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return MemoryEstimate(
        weights=weights,
        gradients=trained * _FLOAT_BYTES,
        optimizer=trained * _FLOAT_BYTES * _MOMENTS,
        activations=_activations(model, config, num_tokens, num_targets),
    )


def _activations(model: MuLlama, config: TrainConfig, num_tokens: int, num_targets: int) -> int:
    """Count the tensors that autograd keeps of each layer, by their widths.

    A layer keeps: two norms' inputs in the model's dtype and in float32, normalised inputs, query, the attention's
    output, key and value as wide as the query (they are repeated for grouped queries), and gate, up, their activation
    and product. With a LoRA each of the seven linears keeps an input of its own. With checkpointing a layer keeps its
    input, and one layer at a time all the rest.
    """
    llama = model.llama.config
    hidden, inner, num_layers = int(llama.hidden_size), int(llama.intermediate_size), int(llama.num_hidden_layers)
    width = _FLOAT_BYTES if config.precision.dtype == "fp32" else 2
    residual = 2 * hidden * (width + 2 * _FLOAT_BYTES)
    attention = 5 * hidden * width
    feed_forward = 4 * inner * width
    has_lora = any("lora_" in name for name, _ in model.llama.named_parameters())
    lora = (6 * hidden + inner) * width if has_lora else 0
    layer = num_tokens * (residual + attention + feed_forward + lora)
    logits = num_targets * int(llama.vocab_size) * _FLOAT_BYTES * 3
    if config.precision.activation_checkpointing:
        return num_layers * num_tokens * hidden * width + layer + logits
    return num_layers * layer + logits
