"""MusiCNN: log-mel spectrogram, network, encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mu_llama.encoders.protocol import EncoderKind

if TYPE_CHECKING:
    from mu_llama.encoders.protocol import Encoder


def _builder() -> Callable[..., Encoder]:
    from mu_llama.encoders.musicnn.encoder import build_musicnn

    return build_musicnn


KIND = EncoderKind("musicnn", _builder, title="MusiCNN")
