"""What the rest of the package may expect of an audio encoder."""

from __future__ import annotations

from typing import Protocol

import torch

from mu_llama.audio.waveform import Waveform


class Encoder(Protocol):
    """A frozen map from one window of sound to a small matrix of features.

    Encoders live outside the trained model: their output is cached by content and never computed twice.
    """

    name: str
    """Short name for people, e.g. `musicnn`."""
    fingerprint: str
    """Hex SHA-256 over the weights and every setting that changes the numbers."""
    rate_hz: int
    """Sample rate that `encode` expects."""
    num_layers: int
    """L: how many feature vectors (hidden states) one window gives."""
    width: int
    """D: length of each vector."""

    def encode(self, window: Waveform) -> torch.Tensor:
        """Encode one window.

        Args:
            window: mono sound at `rate_hz`, of any length from a tenth of a second up.

        Returns:
            Float32 tensor of shape (L, D), averaged over the window's time.

        Raises:
            AudioError: if the window has another rate or is too short to give one frame.
        """
        ...
