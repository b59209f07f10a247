"""The sizes of an adapter, read from its weights or its config file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mu_llama.errors import ConfigError

_MAY_BE_ZERO = ("num_conditioned_layers", "num_audio_tokens", "num_choices")


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
    """Q: how many of the last LLaMA layers are conditioned; 0 where audio tokens stand before the prompt instead."""
    num_heads: int
    """Attention heads of the LLaMA, one gate each."""
    bridge_width: int
    """Inner width of the bridge blocks."""
    num_blocks: int = 3
    """How many bridge blocks."""
    legacy_bridge: bool = False
    """LayerNorm and biased linears in the bridge instead of RMSNorm without bias."""
    input_scaling: Literal["none", "standardise"] = "none"
    """`standardise`: a stored mean is subtracted from the features, then they are divided by a stored standard
    deviation."""
    num_audio_tokens: int = 0
    """N: tokens before the prompt that describe the sound; 0 where layers are conditioned instead."""
    num_choices: int = 0
    """How many of them, the last ones, say which of several things is likeliest."""

    def __post_init__(self) -> None:
        bad = [
            f"{name}={value}"
            for name, value in vars(self).items()
            if isinstance(value, int) and not isinstance(value, bool) and value < (name not in _MAY_BE_ZERO)
        ]
        if not bad and (self.num_conditioned_layers > 0) == (self.num_audio_tokens > 0):
            bad.append(
                f"num_conditioned_layers={self.num_conditioned_layers} with num_audio_tokens={self.num_audio_tokens} "
                "(expected one of them)"
            )
        if self.num_choices and self.num_choices >= self.num_audio_tokens:
            bad.append(f"num_choices={self.num_choices} of num_audio_tokens={self.num_audio_tokens} (expected fewer)")
        if self.input_scaling not in ("none", "standardise"):
            bad.append(f"input_scaling={self.input_scaling!r} (expected none or standardise)")
        if bad:
            raise ConfigError(f"adapter sizes must be positive; came: {', '.join(bad)}")
