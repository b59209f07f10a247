"""Rows of a batch with lengths, conditioning, keys and values of their own; they join and leave at any time.

Keys and values lie in one buffer, which the graph reads and extends in place. Rows that are stepped together are
neighbours in it: a row that stands between them is exchanged with one of them first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu_llama.engine.onnx.description import GraphDescription
from mu_llama.engine.onnx.key_values import KeyValueBuffer
from mu_llama.engine.onnx.weights import stored_head_width, widen_heads
from mu_llama.errors import QuestionError


@dataclass(frozen=True)
class Segment:
    """Keys and values of some neighbouring positions of a row."""

    keys_values: NDArray[np.float32]
    """(layers, 2, KV heads, positions, head width)."""

    @property
    def num_positions(self) -> int:
        """How many positions it holds."""
        return int(self.keys_values.shape[3])

    def first(self, num_positions: int) -> Segment:
        """Its beginning."""
        return Segment(self.keys_values[:, :, :, :num_positions])


@dataclass
class _Row:
    slot: int
    """Where it is in the buffer."""
    audio_tokens: NDArray[np.float32] | None
    """(N, H), to be read before its first token."""
    terms: NDArray[np.float32] | None
    """(Q, A), for all of its steps."""
    length: int = 0
    """Positions that were read."""


class OnnxRows:
    """A batch of rows. Not for several threads at once.

    Args:
        session: of the graph.
        description: of the graph.
        embed: token ids to embeddings (T, H).
        capacity: how many rows there may be.
        num_audio_tokens: N, which conditioning brings; 0 where it brings terms.
    """

    def __init__(
        self,
        session: Any,
        description: GraphDescription,
        embed: Callable[[Sequence[int]], NDArray[np.float32]],
        *,
        capacity: int,
        num_audio_tokens: int,
    ) -> None:
        self.capacity = capacity
        self._session, self._sizes, self._embed = session, description, embed
        self._stored_width = stored_head_width(description.head_width)
        self._num_audio_tokens = num_audio_tokens
        self._rows: dict[int, _Row] = {}
        self._next_id = 0
        self._buffer = KeyValueBuffer(session, description, max_slots=capacity)

    def __len__(self) -> int:
        return len(self._rows)

    def join(self, conditioning: NDArray[Any] | None = None) -> int:
        """Add an empty row.

        Args:
            conditioning: audio tokens (N, H), which the row reads first, or terms (Q, A); None for text alone.

        Returns:
            The row's id, which stays the same until it leaves and is never given again.

        Raises:
            QuestionError: if there are `capacity` rows already; the caller waits for one to leave.
        """
        if len(self._rows) >= self.capacity:
            raise QuestionError(f"{self.capacity} rows are in use; expected a free one: wait until one leaves")
        values = None if conditioning is None else np.ascontiguousarray(conditioning, np.float32)
        if values is not None:
            self._check_conditioning(values)
        is_tokens = self._num_audio_tokens > 0
        if values is not None and not is_tokens:
            values = widen_heads(values, self._sizes.head_width, self._stored_width, axis=1)
        row = _Row(len(self._rows), values if is_tokens else None, None if is_tokens else values)
        self._next_id += 1
        self._rows[self._next_id] = row
        return self._next_id

    def leave(self, row: int) -> None:
        """Take a row out; the last one in the buffer moves into its place."""
        leaving = self._rows.pop(row)
        last = len(self._rows)
        if leaving.slot != last:
            moved = self._in_slot(last)
            self._buffer.move(last, leaving.slot, length=moved.length)
            moved.slot = leaving.slot
        if not self._rows:
            self._buffer.release()

    def length(self, row: int) -> int:
        """Positions that a row has read, audio tokens included."""
        return self._rows[row].length

    def read(self, row: int, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read some tokens into a row; a prompt may be read in several pieces.

        Args:
            row: its id.
            ids: the next tokens, at least one.

        Returns:
            Logits (V,) of the last of them.

        Raises:
            QuestionError: if there are none, or they reach beyond the model's context; nothing is read then.
        """
        logits: NDArray[np.float32] = self._read(row, ids, all_positions=False)[-1]
        return logits

    def read_all(self, row: int, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read some tokens into a row as `read` does, and return the logits of each (T, V)."""
        return self._read(row, ids, all_positions=True)

    def step(self, tokens: Mapping[int, int]) -> dict[int, NDArray[np.float32]]:
        """Read one token into each of some rows, in one batch.

        Args:
            tokens: row id to token id; any rows that have read something.

        Returns:
            Logits (V,) of each of these rows.

        Raises:
            ValueError: if a row has read nothing yet.
            QuestionError: if a row's context is full; nothing is read then.
        """
        if not tokens:
            return {}
        rows = [self._rows[row] for row in tokens]
        if not all(row.length for row in rows):
            raise ValueError("a row has read nothing; expected `read` of its prompt before `step`")
        needed = 1 + max(row.length for row in rows)
        self._check_length(needed)
        self._grow(needed)
        first = self._make_neighbours(rows)
        ordered = sorted(tokens, key=lambda row: self._rows[row].slot)
        batch = [self._rows[row] for row in ordered]
        embeds = self._embed([tokens[row] for row in ordered])[:, None]  # (B, H) -> (B, 1, H)
        logits = self._run(first, batch, embeds, keep=np.zeros(1, np.int64))
        return {row: logits[index, 0] for index, row in enumerate(ordered)}

    def take(self, row: int, start: int, stop: int) -> Segment:
        """Copy keys and values of the positions from `start` to before `stop`, to begin other rows with.

        Raises:
            ValueError: if the row hasn't read them.
        """
        source = self._rows[row]
        if not 0 <= start <= stop <= source.length:
            raise ValueError(f"positions {start} to {stop} of a row of {source.length}; expected them inside")
        return Segment(self._buffer.read(source.slot, start, stop))

    def put(self, row: int, segments: Sequence[Segment]) -> None:
        """Begin an empty row with segments that were taken, one behind the other from position 0 on.

        The first of them brings the audio tokens, where the model has any: the row doesn't read them again.

        Raises:
            ValueError: if the row has read something.
            QuestionError: if they are longer than the model's context.
        """
        target = self._rows[row]
        if target.length:
            raise ValueError(f"the row has read {target.length} positions; expected an empty one")
        length = sum(segment.num_positions for segment in segments)
        if not length:
            return
        self._check_length(length)
        self._grow(length)
        start = 0
        for segment in segments:
            self._buffer.write(target.slot, start, segment.keys_values)
            start += segment.num_positions
        target.length, target.audio_tokens = length, None

    def _read(self, row: int, ids: Sequence[int], *, all_positions: bool) -> NDArray[np.float32]:
        target = self._rows[row]
        if not ids:
            raise QuestionError("a prompt has no tokens; expected at least one")
        embeds = self._embed(ids)
        if target.audio_tokens is not None:
            embeds = np.concatenate([target.audio_tokens, embeds])
        num_new = len(embeds)
        self._check_length(target.length + num_new)
        self._grow(target.length + num_new)
        keep = np.arange(num_new - (len(ids) if all_positions else 1), num_new, dtype=np.int64)
        logits: NDArray[np.float32] = self._run(target.slot, [target], embeds[None], keep=keep)[0]
        target.audio_tokens = None
        return logits

    def _check_conditioning(self, values: NDArray[np.float32]) -> None:
        sizes = self._sizes
        if self._num_audio_tokens:
            expected = (self._num_audio_tokens, sizes.hidden_size)
        else:
            expected = (sizes.options.num_conditioned_layers, sizes.num_heads * sizes.head_width)
        if values.shape != expected:
            raise ValueError(f"conditioning has shape {values.shape}; expected {expected}")

    def _check_length(self, num_positions: int) -> None:
        if num_positions > self._sizes.max_positions:
            counted = self._num_audio_tokens
            raise QuestionError(
                f"the prompt and its answer are {num_positions - counted} tokens long, the model's context "
                f"{self._sizes.max_positions - counted}; ask something shorter or start a new conversation"
            )

    def _in_slot(self, slot: int) -> _Row:
        return next(row for row in self._rows.values() if row.slot == slot)

    def _grow(self, num_positions: int) -> None:
        lengths = ((row.slot, row.length) for row in self._rows.values())
        self._buffer.grow(num_positions, lengths=lengths, num_slots=len(self._rows))

    def _make_neighbours(self, rows: list[_Row]) -> int:
        """Exchange as few rows as possible so that some of them stand side by side; gives the first one's slot."""
        slots = sorted(row.slot for row in rows)
        starts = range(len(self._rows) - len(rows) + 1)
        first = max(starts, key=lambda start: sum(start <= slot < start + len(rows) for slot in slots))
        window = range(first, first + len(rows))
        chosen = set(slots)
        free = [slot for slot in window if slot not in chosen]
        for row, slot in zip([row for row in rows if row.slot not in window], free, strict=True):
            self._exchange(row, self._in_slot(slot))
        return first

    def _exchange(self, one: _Row, other: _Row) -> None:
        self._buffer.exchange(one.slot, other.slot, length=max(one.length, other.length))
        one.slot, other.slot = other.slot, one.slot

    def _run(
        self, first: int, batch: list[_Row], embeds: NDArray[np.float32], *, keep: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Run the graph on rows from slot `first` on, all with as many new positions; logits (B, K, V)."""
        num_new = embeds.shape[1]
        totals = [row.length + num_new for row in batch]
        inputs: dict[str, NDArray[Any]] = {
            "embeds": np.ascontiguousarray(embeds),
            "seqlens_k": np.array(totals, np.int32) - np.int32(1),
            "total": np.array([max(totals)], np.int32),
            "keep": keep,
        }
        if self._sizes.options.num_conditioned_layers:
            inputs["terms"] = self._terms(batch)
        logits = np.empty((len(batch), len(keep), self._sizes.vocab_size), np.float32)
        binding = self._buffer.binding(first, len(batch))
        for name, values in inputs.items():
            binding.bind_input(name, "cpu", 0, values.dtype.type, values.shape, values.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        for row in batch:
            row.length += num_new
        return logits

    def _terms(self, batch: list[_Row]) -> NDArray[np.float32]:
        """(B, Q, A); zeros for rows of text alone."""
        sizes = self._sizes
        shape = (len(batch), sizes.options.num_conditioned_layers, sizes.num_heads * self._stored_width)
        terms = np.zeros(shape, np.float32)
        for index, row in enumerate(batch):
            if row.terms is not None:
                terms[index] = row.terms
        return terms
