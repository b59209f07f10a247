"""Tables of the rotary position embedding, as GroupQueryAttention takes them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mu_llama.errors import ConfigError
from mu_llama.model.config import LlamaConfig

USE_TORCH = "use --engine torch"
"""What to do about a LLaMA that this engine can't run."""
ROPE_TYPES = ("default", "linear", "llama3")
"""Rotary embeddings that this engine has."""


def rope_type(config: LlamaConfig) -> str:
    """Name the rotary embedding of a LLaMA: `default`, or how its angles are scaled."""
    scaling = config.rope_scaling or {}
    return str(scaling.get("rope_type", scaling.get("type", "default")))


def rotary_tables(
    config: LlamaConfig, *, num_positions: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of the angles at each position.

    Args:
        config: of the LLaMA.
        num_positions: how many positions.
        width: columns of a table, at least half a head's width; further ones don't rotate.

    Returns:
        Two tables (positions, width).

    Raises:
        ConfigError: see `rotary_frequencies`.
    """
    positions = np.arange(num_positions, dtype=np.float32)
    angles = np.zeros((num_positions, width), np.float32)
    frequencies = rotary_frequencies(config)
    angles[:, : len(frequencies)] = positions[:, None] * frequencies
    return np.cos(angles), np.sin(angles)


def rotary_frequencies(config: LlamaConfig) -> NDArray[np.float32]:
    """Angles by which each pair of head columns is rotated per position: (head width / 2).

    Computed in float32 step by step as transformers does, so that late positions agree. Source of `llama3`: Meta's
    llama-models, `apply_scaling`.

    Raises:
        ConfigError: if the config scales them in a way that isn't one of default, linear and llama3.
    """
    one, base = np.float32(1), np.float32(config.rope_theta)
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies: NDArray[np.float32] = one / base**exponents
    kind = rope_type(config)
    if kind not in ROPE_TYPES:
        raise ConfigError(
            f"the LLaMA's rope type is {kind!r}; the onnx engine has {', '.join(ROPE_TYPES)}: {USE_TORCH}"
        )
    scaling = config.rope_scaling
    if scaling is None or kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / np.float32(scaling["factor"])
    factor, low, high = (np.float32(scaling[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    num_trained = np.float32(scaling["original_max_position_embeddings"])
    wavelengths = np.float32(2 * math.pi) / frequencies
    share = (num_trained / wavelengths - low) / (high - low)
    between = (one - share) * frequencies / factor + share * frequencies
    slowed = np.where(wavelengths > num_trained / low, frequencies / factor, between)
    return np.where(wavelengths < num_trained / high, frequencies, slowed).astype(np.float32)
