"""What the LLaMA makes of a track's audio tokens, kept for every question about it.

Audio tokens stand before the text, so their keys and values depend on the track alone. They are computed once, with the
first question, and every prompt goes on from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from mu_llama.model.mu_llama import MuLlama


class AudioPrefix:
    """Keys and values (heads, N, head width) of each layer, of one track and model; empty until somebody asks."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] | None = None


@torch.inference_mode()
def begin_cache(model: MuLlama, conditioning: Tensor, prefixes: Sequence[AudioPrefix]) -> Cache:
    """Make a cache that holds the audio tokens of each row, and remember what had to be computed for it.

    Args:
        model: the model; without audio tokens the cache is empty.
        conditioning: (B, N, H), audio tokens of each row.
        prefixes: of the rows' tracks; rows of one track share theirs.
    """
    cache = model.new_cache()
    if not model.adapter.config.num_audio_tokens:
        return cache
    missing = {prefix: row for row, prefix in enumerate(prefixes) if prefix.layers is None}
    if missing:
        _read(model, conditioning[list(missing.values())], list(missing))
    found = [prefix.layers for prefix in prefixes if prefix.layers is not None]
    for layer, rows in enumerate(zip(*found, strict=True)):
        keys, values = (torch.stack(own) for own in zip(*rows, strict=True))
        cache.update(keys, values, layer)
    return cache


def _read(model: MuLlama, conditioning: Tensor, prefixes: Sequence[AudioPrefix]) -> None:
    cache = model.new_cache()
    dtype = model.llama.get_input_embeddings().weight.dtype
    decoder = model.llama.get_decoder()
    decoder(inputs_embeds=conditioning.to(model.device, dtype), past_key_values=cache, use_cache=True)
    for row, prefix in enumerate(prefixes):
        # Copies, so that one row doesn't keep a whole batch alive.
        prefix.layers = [(layer.keys[row].clone(), layer.values[row].clone()) for layer in cache.layers]
