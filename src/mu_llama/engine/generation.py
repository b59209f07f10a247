"""One row from its prompt to its last token: the prompt is read in chunks, then tokens are chosen one by one."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mu_llama.arrays import FloatArray
from mu_llama.engine.prefix import CachedSegment, PrefixCache, Prompt
from mu_llama.engine.protocol import Engine, Rows
from mu_llama.engine.sampling import GenerationOptions, choose_token
from mu_llama.errors import EngineError, QuestionError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Token:
    """One token of one row."""

    id: int | None
    """The token, or None where the row ends without one (an end token is not passed on)."""
    finish_reason: FinishReason | None
    """Why the row ends here; None while it goes on."""


def check_prompt_length(num_tokens: int, *, context_length: int) -> None:
    """Refuse a prompt that leaves no room for an answer.

    Raises:
        QuestionError: if it is as long as the model's context, or longer.
    """
    if num_tokens >= context_length:
        raise QuestionError(
            f"the prompt is {num_tokens} tokens long, the model's context {context_length}; "
            "ask something shorter or start a new conversation"
        )


class PromptReading:
    """A prompt while it is read into a row, chunk by chunk; its segments go into the prefix cache, or come from it."""

    def __init__(
        self,
        rows: Rows,
        row: int,
        *,
        segments: Sequence[list[int]],
        rest: list[int],
        prefix: PrefixCache,
        engine: Engine,
    ) -> None:
        self._rows, self._row, self._segments, self._prefix, self._engine = rows, row, segments, prefix, engine
        cached, chunk = prefix.matching(segments, engine=engine), engine.chunk_tokens
        if cached:
            rows.put(row, [segment.state for segment in cached])
        self._num_read, self._start = len(cached), rows.length(row)
        # The same chunks whatever is cached, so that the numbers are the same.
        left = [*((ids, True) for ids in segments[len(cached) :]), (rest, False)]
        self._chunks = deque(
            (ids[start : start + chunk], is_segment and start + chunk >= len(ids))
            for ids, is_segment in left
            for start in range(0, len(ids), chunk)
        )

    def read_chunk(self) -> FloatArray | None:
        """Read the next chunk; returns the logits behind the last one."""
        ids, ends_segment = self._chunks.popleft()
        logits = self._rows.read(self._row, ids)
        if ends_segment:
            end = self._rows.length(self._row)
            before = self._prefix.matching(self._segments[: self._num_read], engine=self._engine)
            if len(before) == self._num_read:
                state = self._rows.take(self._row, self._start, end)
                ids = list(self._segments[self._num_read])
                self._prefix.segments = [*before, CachedSegment(ids, state, weakref.ref(self._engine))]
            self._num_read, self._start = self._num_read + 1, end
        return None if self._chunks else logits

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to read."""
        return not self._chunks


class Generation:
    """One row from its submission to its last token.

    Args:
        prompt: what is read.
        conditioning: of its track, see `Rows.join`.
        options: how tokens are chosen.
        eos_ids: tokens that end the row.
        prefix: of its track.
        budget: most tokens of the answer.
    """

    def __init__(
        self,
        prompt: Prompt,
        conditioning: FloatArray | None,
        *,
        options: GenerationOptions,
        eos_ids: frozenset[int],
        prefix: PrefixCache,
        budget: int,
    ) -> None:
        self._prompt, self._conditioning, self._prefix = prompt, conditioning, prefix
        self._options, self._eos_ids, self._budget = options, eos_ids, budget
        self._random = np.random.default_rng(options.seed)
        self._num_tokens = 0
        self._reading: PromptReading | None = None
        self.row: int | None = None
        """Its number in the table of rows, while it has one."""
        self.has_read = False
        """Whether its prompt is read."""
        self.last_id = 0
        """The token that comes next in its row."""
        self.tokens: deque[Token] = deque()
        """Tokens that nobody took yet."""
        self.error: BaseException | None = None
        """Why it ended too early."""
        self.is_finished = False
        """Whether no further token will come."""

    def cancel(self) -> None:
        """End it, from any thread; its row is free before the model runs again."""
        self.is_finished = True

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        self.error, self.is_finished = error, True

    def join(self, rows: Rows) -> None:
        """Take a row of the table."""
        self.row = rows.join(self._conditioning)

    def read_chunk(self, rows: Rows, engine: Engine) -> None:
        """Read the next chunk of the prompt; behind the last one, choose the first token."""
        assert self.row is not None, "it has joined"
        if self._reading is None:  # only now, so that what other rows have read meanwhile is used
            segments = self._prompt.pieces()
            rest = self._prompt.ids[sum(map(len, segments)) :]
            self._reading = PromptReading(
                rows, self.row, segments=segments, rest=rest, prefix=self._prefix, engine=engine
            )
        logits = self._reading.read_chunk()
        if logits is not None:
            self.has_read = True
            self.accept(logits)

    def accept(self, logits: FloatArray) -> None:
        """Choose the next token."""
        if not np.isfinite(logits.max()):
            self.fail(EngineError("the model's numbers overflowed (NaN); check its weights, or use a wider dtype"))
            return
        options = self._options
        chosen = choose_token(logits, temperature=options.temperature, top_p=options.top_p, generator=self._random)
        self._num_tokens += 1
        if chosen in self._eos_ids:
            token = Token(None, "stop")
        else:
            token = Token(chosen, "length" if self._num_tokens >= self._budget else None)
        self.last_id = chosen
        self.tokens.append(token)
        if token.finish_reason is not None:
            self.is_finished = True
