"""Prefix cache: keys and values of what stands before a question, reused by every question that follows it.

Audio tokens and the template's head come first, so their keys and values belong to the track; those of earlier
questions and answers belong to the conversation. Both can be computed before the next question arrives.

In bf16 the last bit of a product depends on how many rows are multiplied at once. So a prompt is read in the same
segments whether they are cached or not, and reading ahead changes no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from mu_llama.engine.torch.llama import MuLlama


@dataclass(frozen=True)
class Prompt:
    """Token ids of a conversation that asks for its next answer."""

    ids: list[int]
    """All of them."""
    segments: list[list[int]]
    """What is known before the question, as it is read: the head, then each finished turn. Used as far as `ids` begin
    with them; empty to read everything at once."""


@dataclass(frozen=True)
class _Segment:
    """Keys and values of one segment, computed after those before it."""

    ids: list[int]
    layers: list[tuple[Tensor, Tensor]]
    """Keys and values (heads, T, head width) of each layer; of the first segment with the audio tokens."""


class PrefixCache:
    """Cached segments of one track and model, of the latest conversation; empty before the first question."""

    def __init__(self) -> None:
        self.segments: list[_Segment] = []

    def matching(self, segments: Sequence[list[int]]) -> list[_Segment]:
        """The cached segments that a conversation begins with."""
        pairs = zip(self.segments, segments, strict=False)
        return [cached for cached, _ in takewhile(lambda pair: pair[0].ids == pair[1], pairs)]


@torch.inference_mode()
def read_segments(
    model: MuLlama, conditioning: Tensor, segments: Sequence[list[int]], prefix: PrefixCache
) -> list[_Segment]:
    """Compute and cache the segments that aren't cached; gives all of them.

    Args:
        model: the model.
        conditioning: (N, H), audio tokens of the track.
        segments: of a conversation, see `Prompt`.
        prefix: of the track.
    """
    cached = prefix.matching(segments)
    if len(cached) == len(segments):
        return cached
    cache = _cache_of(model, [cached])
    for ids in segments[len(cached) :]:
        cached += _read(model, conditioning[None], ids, cache)
    prefix.segments = cached
    return cached


@torch.inference_mode()
def begin_cache(
    model: MuLlama, conditioning: Tensor, prompts: Sequence[Prompt], prefixes: Sequence[PrefixCache]
) -> tuple[Cache, int]:
    """Make a cache that holds what is known of each prompt; what isn't cached yet is computed and cached.

    One prompt goes on from all of its segments. Of several, which go on together and so from equal lengths, the first
    segment is used: it holds the same text in front of every conversation.

    Args:
        model: the model.
        conditioning: (B, N, H), audio tokens of each row.
        prompts: of the rows.
        prefixes: of the rows' tracks; rows of one track share theirs.

    Returns:
        The cache, and how many tokens of each prompt are in it.
    """
    if not all(prompt.segments for prompt in prompts):
        return model.new_cache(), 0
    if len(prompts) == 1:
        rows = [read_segments(model, conditioning[0], prompts[0].segments, prefixes[0])]
    else:
        heads = [prompt.segments[:1] for prompt in prompts]
        missing = {prefix: row for row, prefix in enumerate(prefixes) if not prefix.matching(heads[row])}
        if missing:
            some = list(missing.values())
            read = _read(model, conditioning[some], heads[0][0], model.new_cache())
            for prefix, segment in zip(missing, read, strict=True):
                prefix.segments = [segment]
        rows = [prefix.matching(head) for prefix, head in zip(prefixes, heads, strict=True)]
    # A token of each prompt is left to go on from.
    used = min(min(_common(prompt, row), len(prompt.ids) - 1) for prompt, row in zip(prompts, rows, strict=True))
    return _cache_of(model, rows, max_tokens=model.num_tokens_before_prompt + used), used


def _common(prompt: Prompt, row: Sequence[_Segment]) -> int:
    """How many tokens a prompt begins with that were read."""
    read = chain.from_iterable(segment.ids for segment in row)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt.ids, read, strict=False)))


def _cache_of(model: MuLlama, rows: Sequence[Sequence[_Segment]], max_tokens: int | None = None) -> Cache:
    """Put the segments of each row one behind the other, up to `max_tokens` tokens; rows are equally long."""
    cache = model.new_cache()
    for layer in range(len(rows[0][0].layers) if rows[0] else 0):
        keys, values = (
            torch.stack(
                [torch.cat([segment.layers[layer][which] for segment in row], dim=1)[:, :max_tokens] for row in rows]
            )
            for which in (0, 1)
        )
        cache.update(keys, values, layer)
    return cache


def _read(model: MuLlama, conditioning: Tensor, ids: list[int], cache: Cache) -> list[_Segment]:
    """Read one segment behind what the cache holds, for each row of the conditioning (B, N, H)."""
    text = torch.tensor([ids] * len(conditioning), device=model.device)
    before = cache.get_seq_length()
    known = model.inputs(text, conditioning, past_key_values=cache)
    model.llama.get_decoder()(**known, past_key_values=cache, use_cache=True)
    # Copies, so that one row doesn't keep a whole batch alive.
    added = [(layer.keys[:, :, before:], layer.values[:, :, before:]) for layer in cache.layers]
    return [_Segment(ids, [(k[row].clone(), v[row].clone()) for k, v in added]) for row in range(len(conditioning))]
