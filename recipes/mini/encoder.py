"""The encoder of `mini`: which of MusiCNN's features the adapter reads."""

from __future__ import annotations

from typing import cast

from mu_llama.audio.windows import FULL
from mu_llama.cache_folder import home_folder
from mu_llama.encoders import build_encoder
from mu_llama.encoders.cache import FeatureCache
from mu_llama.encoders.musicnn.encoder import MusicnnEncoder
from mu_llama.inference.extractor import FeatureExtractor

ENCODER = {"kind": "musicnn", "parts": ["penultimate", "tag_logits", "pooled"]}
FEATURES = {"MSD hidden": slice(0, 200), "MTT hidden": slice(200, 400), "MSD tags": slice(400, 450),
            "MTT tags": slice(450, 500), "MSD pooled": slice(500, 2006), "MTT pooled": slice(2006, 3512)}  # fmt: skip
"""Where the encoder's variants and parts stand in its features."""


def open_encoder(*, threads: int | None = None) -> tuple[MusicnnEncoder, FeatureExtractor]:
    """The encoder, and an extractor that runs it on clips through the feature cache."""
    encoder = cast("MusicnnEncoder", build_encoder({**ENCODER, "threads": threads}))
    return encoder, FeatureExtractor(lambda: encoder, plan=FULL, cache=FeatureCache(home_folder() / "features"))
