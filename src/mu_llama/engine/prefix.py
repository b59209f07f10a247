"""Prefix reuse: keys and values of what stands before a question, used by every question that follows it.

Audio tokens and the template's head come first, so their keys and values belong to the track; those of earlier
questions and answers belong to the conversation. Both can be computed before the next question arrives.

The last bit of a product may depend on how many rows are multiplied at once. So a prompt is read in the same segments
whether they are cached or not, and reading ahead changes no answer.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from mu_llama.engine.protocol import Engine, Segment


@dataclass(frozen=True)
class Prompt:
    """Token ids of a conversation that asks for its next answer."""

    ids: list[int]
    """All of them."""
    segments: list[list[int]] = field(default_factory=list)
    """What is known before the question, as it is read: the head, then each finished turn. Used as far as `ids` begin
    with them; empty to read everything at once."""

    def pieces(self) -> list[list[int]]:
        """The segments that `ids` begin with; one token at least is left behind them."""
        pieces, end = [], 0
        for segment in self.segments:
            stop = end + len(segment)
            if stop >= len(self.ids) or self.ids[end:stop] != segment:
                break
            pieces.append(segment)
            end = stop
        return pieces


@dataclass(frozen=True)
class CachedSegment:
    """Keys and values of one segment, computed after those before it."""

    ids: list[int]
    """Its tokens."""
    state: Segment
    """Keys and values; of the first segment with those of the audio tokens."""
    engine: weakref.ref[Engine]
    """What computed them; no other engine can use them."""


class PrefixCache:
    """Cached segments of one track, of the latest conversation; empty before the first question.

    They belong to the engine that computed them, and another engine that is asked about the track replaces them. A copy
    in another process begins empty.
    """

    def __init__(self) -> None:
        self.segments: list[CachedSegment] = []

    def matching(self, segments: Sequence[list[int]], *, engine: Engine) -> list[CachedSegment]:
        """The cached segments of this engine that a conversation begins with."""
        pairs = zip(self.segments, segments, strict=False)
        return [
            cached for cached, _ in takewhile(lambda pair: pair[0].ids == pair[1] and pair[0].engine() is engine, pairs)
        ]

    def __getstate__(self) -> dict[str, object]:
        return {"segments": []}
