"""The sizes of an adapter, read from its weights or its config file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mu_llama.errors import ConfigError


@dataclass(frozen=True)
class AdapterConfig:
    """Every size the adapter needs; nothing is assumed."""

    num_encoder_layers: int
    """L: hidden states the encoder gives."""
    encoder_width: int
    """D: width of each."""
    hidden_size: int
    """H: width of the LLaMA and of the audio vector."""
    num_conditioned_layers: int
    """Q: how many of the last LLaMA layers are conditioned."""
    num_heads: int
    """Attention heads of the LLaMA, one gate each."""
    bridge_width: int
    """Inner width of the bridge blocks."""
    num_blocks: int = 3
    """How many bridge blocks."""
    legacy_bridge: bool = False
    """LayerNorm and biased linears in the bridge instead of RMSNorm without bias."""
    input_scaling: Literal["none", "standardise"] = "none"
    """`standardise`: features lose a stored mean and are divided by a stored deviation before anything else."""

    def __post_init__(self) -> None:
        bad = [
            f"{name}={value}"
            for name, value in vars(self).items()
            if isinstance(value, int) and not isinstance(value, bool) and value < 1
        ]
        if self.input_scaling not in ("none", "standardise"):
            bad.append(f"input_scaling={self.input_scaling!r} (expected none or standardise)")
        if bad:
            raise ConfigError(f"adapter sizes must be positive; came: {', '.join(bad)}")
