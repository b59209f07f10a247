"""What stands for audio where an example has none: one second of zeros."""

from __future__ import annotations

import numpy as np
import torch

from mu_llama.audio.waveform import Waveform
from mu_llama.encoders.cache import FeatureCache, content_hash, feature_key
from mu_llama.encoders.pooling import TrackFeatures
from mu_llama.encoders.protocol import Encoder


def encode_silence(encoder: Encoder, cache: FeatureCache | None = None) -> torch.Tensor:
    """Encode a second of zeros at the encoder's rate, as the published training does for text-only examples.

    Args:
        encoder: hears it.
        cache: where the result is looked up and kept.

    Returns:
        Float32 (L, D).
    """
    silence = Waveform(np.zeros(encoder.rate_hz, dtype=np.float32), encoder.rate_hz)

    def encode() -> TrackFeatures:
        # A new tensor: one made in inference mode can't be trained on.
        return TrackFeatures(encoder.encode(silence).float().clone(), spans=((0.0, 1.0),), duration_s=1.0)

    if cache is None:
        return encode().values
    # A plan of its own, so that a silent track which happens to be the same is still refused.
    key = feature_key(
        encoder_name=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        content=content_hash(silence),
        window_plan="text-only",
        offset_s=0.0,
        duration_s=None,
    )
    return cache.get_or_compute(key, encode).values
