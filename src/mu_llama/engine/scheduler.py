"""Continuous batching: rows that begin, end and wait independently of one another, over one engine.

Each turn of the loop reads a chunk of one new prompt and steps every row that is being continued. There is no thread
behind it: whoever waits for a token runs the loop, for all rows.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache

from mu_llama.arrays import FloatArray
from mu_llama.engine.generation import Generation, PromptReading, Token, check_prompt_length
from mu_llama.engine.prefix import PrefixCache, Prompt
from mu_llama.engine.protocol import Engine, Rows
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import EngineError, QuestionError

MAX_ROWS = 16
"""Rows that run at once; others wait."""


class Scheduler:
    """Runs the rows of one engine; thread-safe.

    Args:
        engine: the model.
        max_rows: rows that run at once; others wait.
    """

    def __init__(self, engine: Engine, *, max_rows: int = MAX_ROWS) -> None:
        self.engine = engine
        self._max_rows = max_rows
        self._lock = threading.Lock()
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._rows: Rows | None = None
        _SCHEDULERS.add(self)
        _begin_anew_when_forked()

    def begin_anew(self) -> None:
        """Begin without rows in a forked process, where a thread that isn't there may hold the lock.

        Rows of the process that was forked end here with an EngineError; there they go on.
        """
        self._lock, self._rows = threading.Lock(), None
        for generation in (*self._running, *self._waiting):
            if not generation.is_finished:
                generation.fail(EngineError("it was asked before this process was forked; ask it again in this one"))
        self._waiting, self._running = deque(), []

    def submit(
        self,
        prompt: Prompt,
        conditioning: FloatArray | None,
        *,
        options: GenerationOptions,
        eos_ids: frozenset[int],
        prefix: PrefixCache | None = None,
    ) -> Generation:
        """Add a row, which begins as soon as there is room for it.

        Args:
            prompt: token ids.
            conditioning: of its track, see `Rows.join`.
            options: how tokens are chosen; its stop texts are the caller's business.
            eos_ids: tokens that end the row.
            prefix: of its track, used and extended.

        Raises:
            QuestionError: if the prompt is empty or leaves no room for an answer.
        """
        context_length = self.engine.context_length
        if not prompt.ids:
            raise QuestionError("a prompt has no tokens; expected at least one")
        check_prompt_length(len(prompt.ids), context_length=context_length)
        generation = Generation(
            prompt,
            conditioning,
            options=options,
            eos_ids=eos_ids,
            prefix=PrefixCache() if prefix is None else prefix,
            budget=min(options.max_new_tokens, context_length - len(prompt.ids)),
        )
        self._waiting.append(generation)
        return generation

    def stream(self, generations: Sequence[Generation]) -> Iterator[tuple[int, Token]]:
        """Run until all of these have ended; an iteration that is ended early cancels them.

        Yields:
            (which of them, token), as tokens are chosen.

        Raises:
            EngineError: if the numbers of one of them overflow.
        """
        try:
            while ready := self.take(generations):
                for index, token in ready:
                    if isinstance(token, BaseException):
                        raise token
                    yield index, token
        finally:
            for generation in generations:
                generation.cancel()

    def take(self, generations: Sequence[Generation]) -> list[tuple[int, Token | BaseException]]:
        """Run until at least one of these has something to give.

        Returns:
            (which of them, token or the error that ended it), all there are; nothing where all have ended.
        """
        with self._lock:
            while True:
                ready: list[tuple[int, Token | BaseException]] = []
                for index, generation in enumerate(generations):
                    while generation.tokens:
                        ready.append((index, generation.tokens.popleft()))
                    if generation.error is not None:
                        ready.append((index, generation.error))
                        generation.error = None
                if ready or all(generation.is_finished for generation in generations):
                    return ready
                self._advance()

    def read_ahead(self, segments: list[list[int]], conditioning: FloatArray | None, prefix: PrefixCache) -> None:
        """Read the segments of a conversation that aren't cached yet, and cache them."""
        with self._lock:
            if len(prefix.matching(segments, engine=self.engine)) == len(segments):
                return
            rows = self.engine.new_rows(1)
            reading = PromptReading(
                rows, rows.join(conditioning), segments=segments, rest=[], prefix=prefix, engine=self.engine
            )
            while not reading.is_finished:
                reading.read_chunk()

    def _advance(self) -> None:
        """Read a chunk of one prompt, and step the rows whose prompts were read before.

        Where that fails, all rows are lost, and their generations end with the error: with an EngineError where it was
        an interrupt, which is raised in the thread that it interrupted alone.
        """
        try:
            if self._rows is None:
                self._rows = self.engine.new_rows(self._max_rows)
            rows = self._rows
            self._free_rows(rows)
            while self._waiting and len(self._running) < rows.capacity:
                generation = self._waiting.popleft()
                if not generation.is_finished:
                    self._running.append(generation)  # before it joins, so that a failure ends it too
                    generation.join(rows)
            stepped = {generation.row: generation for generation in self._running if generation.has_read}
            reading = [generation for generation in self._running if not generation.has_read]
            if reading:
                reading[0].read_chunk(rows, self.engine)
            # A step costs nearly the same for one row as for many: a few rows wait until many are read.
            if len(stepped) >= len(reading):
                tokens = {row: generation.last_id for row, generation in stepped.items() if row is not None}
                for row, logits in (rows.step(tokens) if tokens else {}).items():
                    stepped[row].accept(logits)
            self._free_rows(rows)
        except BaseException as error:
            # Without a table of rows nobody can begin.
            lost = [*self._running, *(self._waiting if self._rows is None else ())]
            self._running, self._rows = [], None
            is_failure = isinstance(error, Exception)
            for generation in lost:
                if not generation.is_finished:
                    generation.fail(error if is_failure else EngineError("the computation was interrupted; ask again"))
            if not is_failure:
                raise

    def _free_rows(self, rows: Rows) -> None:
        """Free the rows of generations that have ended."""
        # Asked once: another thread may cancel one meanwhile.
        ended = [generation for generation in self._running if generation.is_finished]
        for generation in ended:
            self._running.remove(generation)
            if generation.row is not None:
                rows.leave(generation.row)
                generation.row = None


_SCHEDULERS: weakref.WeakSet[Scheduler] = weakref.WeakSet()


@cache
def _begin_anew_when_forked() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_begin_anew)


def _begin_anew() -> None:
    for scheduler in _SCHEDULERS:
        scheduler.begin_anew()
