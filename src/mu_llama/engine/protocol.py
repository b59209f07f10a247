"""What inference needs of an engine: conditioning made of features, and rows that are read and stepped together.

A row is one sequence that the LLaMA continues. It has its own length and conditioning, and its keys and values don't
depend on the rows beside it. Which rows run, and when each is read, stepped and ended, is the scheduler's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from mu_llama.arrays import FloatArray
from mu_llama.model.retrieval import Blend

Quantization = Literal["int8", "int4"]
"""Width of the LLaMA's linear layers where they are quantized."""
SMALL_WIDTH = 2048
"""Hidden sizes below are small: rounding to 4 bits moves such a LLaMA's logits (python -m benchmarks.quantized)."""
DeviceMap = Literal["auto"] | Mapping[str, str | int]
"""`auto`, or which module goes to which device."""
Segment = Any
"""Keys and values of some positions of a row, in the form of the engine that made them."""


class Rows(Protocol):
    """Up to `capacity` rows of one engine; not thread-safe."""

    @property
    def capacity(self) -> int:
        """Most rows at once."""
        ...

    def join(self, conditioning: FloatArray | None) -> int:
        """Begin a row.

        Args:
            conditioning: (Q, A), terms of the last Q layers; or (N, H), audio tokens, which are read with its first
                text; None for text alone.

        Returns:
            The row's number, until it leaves.
        """
        ...

    def read(self, row: int, ids: Sequence[int]) -> FloatArray:
        """Read text behind what a row has; returns the logits (V,) after the last token. May be called piece by piece.

        Args:
            row: from `join`.
            ids: at least one token.
        """
        ...

    def step(self, tokens: Mapping[int, int]) -> dict[int, FloatArray]:
        """Read one token in each of several rows at once; returns the logits (V,) of each."""
        ...

    def length(self, row: int) -> int:
        """Positions that a row has, with its audio tokens."""
        ...

    def take(self, row: int, start: int, stop: int) -> Segment:
        """Copy the keys and values of positions `start` up to `stop`."""
        ...

    def put(self, row: int, segments: Sequence[Segment]) -> None:
        """Begin a row without positions with copies of segments, which were taken one behind the other from 0 on."""
        ...

    def leave(self, row: int) -> None:
        """End a row; its memory is free for others."""
        ...


class Engine(Protocol):
    """A model in memory that reads and continues rows."""

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer together; audio tokens aren't counted."""
        ...

    @property
    def num_audio_tokens(self) -> int:
        """Audio tokens before a prompt; 0 where the audio conditions layers."""
        ...

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a prompt that are read between two steps of other rows."""
        ...

    def condition(self, features: FloatArray, *, blend: Blend | None = None) -> FloatArray:
        """Make a track's conditioning of its features: (L, D) to (Q, A), or (N, H) with audio tokens.

        Raises:
            CheckpointError: if the features have another shape than those the adapter was trained with.
        """
        ...

    def new_rows(self, capacity: int) -> Rows:
        """Make a table for rows."""
        ...
