"""Rows that begin, wait and end independently, on an engine that counts instead of computing."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_llama.arrays import FloatArray
from mu_llama.engine.generation import Generation
from mu_llama.engine.prefix import PrefixCache, Prompt
from mu_llama.engine.protocol import Segment
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.engine.scheduler import Scheduler
from mu_llama.errors import EngineError, QuestionError
from tests.factories.generation import generate

VOCABULARY, CONTEXT = 97, 200
OVERFLOWS = 96
"""A token behind which the numbers are NaN; no other is followed by it."""


class CountingRows:
    """The next token follows from all tokens of a row alone."""

    def __init__(self, capacity: int, log: list[tuple[str, int]]) -> None:
        self.capacity, self._log = capacity, log
        self._ids: dict[int, list[int]] = {}

    def join(self, conditioning: FloatArray | None) -> int:
        row = next(number for number in range(self.capacity) if number not in self._ids)
        self._ids[row] = []
        return row

    def read(self, row: int, ids: Sequence[int]) -> FloatArray:
        self._log.append(("read", len(ids)))
        self._ids[row] += ids
        return self._logits(row)

    def step(self, tokens: Mapping[int, int]) -> dict[int, FloatArray]:
        self._log.append(("step", len(tokens)))
        for row, token in tokens.items():
            self._ids[row].append(token)
        return {row: self._logits(row) for row in tokens}

    def length(self, row: int) -> int:
        return len(self._ids[row])

    def take(self, row: int, start: int, stop: int) -> Segment:
        return self._ids[row][start:stop]

    def put(self, row: int, segments: Sequence[Segment]) -> None:
        self._ids[row] = [token for segment in segments for token in segment]

    def leave(self, row: int) -> None:
        del self._ids[row]

    def _logits(self, row: int) -> FloatArray:
        logits = np.zeros(VOCABULARY, np.float32)
        logits[after(self._ids[row])] = 1
        if OVERFLOWS in self._ids[row]:
            logits[5] = np.nan
        return logits


def after(ids: Sequence[int]) -> int:
    return (7 * len(ids) + sum(ids)) % OVERFLOWS


class CountingEngine:
    context_length, num_audio_tokens, chunk_tokens = CONTEXT, 0, 4

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def condition(self, features: FloatArray, *, blend: object = None) -> FloatArray:
        raise NotImplementedError

    def new_rows(self, capacity: int) -> CountingRows:
        return CountingRows(capacity, self.log)


def alone(prompt: Sequence[int], num_tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(num_tokens):
        ids.append(after(ids))
    return ids[len(prompt) :]


def submit(scheduler: Scheduler, ids: list[int], num_tokens: int = 5) -> Generation:
    options = GenerationOptions(max_new_tokens=num_tokens)
    return scheduler.submit(Prompt(ids), None, options=options, eos_ids=frozenset())


def rest_of(scheduler: Scheduler, generation: Generation) -> list[int]:
    return [token.id for _, token in scheduler.stream([generation]) if token.id is not None]


@settings(max_examples=50, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, 95), min_size=1, max_size=13), min_size=1, max_size=9),
    max_rows=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_rows_are_answered_as_each_alone_whatever_joins_and_stops(
    prompts: list[list[int]], max_rows: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    scheduler, running, answers = Scheduler(CountingEngine(), max_rows=max_rows), {}, {}
    left = list(enumerate(prompts))
    cancelled = set()
    while left or running:
        if left and random.random() < 0.5:
            index, prompt = left.pop(0)
            running[index], answers[index] = submit(scheduler, prompt, 9), []
        if running and random.random() < 0.1:
            index = list(running)[int(random.integers(len(running)))]
            running.pop(index).cancel()
            cancelled.add(index)
        names = list(running)
        for place, token in scheduler.take([running[name] for name in names]):
            assert not isinstance(token, BaseException)
            answers[names[place]].append(token.id)
            if token.finish_reason:
                running.pop(names[place])
    for index, prompt in enumerate(prompts):
        expected = alone(prompt, 9)
        assert answers[index] == (expected[: len(answers[index])] if index in cancelled else expected)


def test_a_new_prompt_is_read_in_chunks_between_the_steps_of_others() -> None:
    engine = CountingEngine()
    scheduler = Scheduler(engine)
    first = submit(scheduler, [1, 2, 3], num_tokens=20)
    scheduler.take([first])
    engine.log.clear()
    second = submit(scheduler, list(range(20, 30)), num_tokens=3)
    assert rest_of(scheduler, second) == alone(range(20, 30), 3)
    assert engine.log[:5] == [("read", 4), ("step", 1), ("read", 4), ("step", 1), ("read", 2)]
    assert ("step", 2) in engine.log
    assert rest_of(scheduler, first)[-1] == alone([1, 2, 3], 20)[-1]


def test_many_new_prompts_are_read_before_few_rows_are_stepped() -> None:
    engine = CountingEngine()
    assert generate(engine, [[20 + row] for row in range(8)], max_new_tokens=3) == [
        alone([20 + row], 3) for row in range(8)
    ]
    assert engine.log[:4] == [("read", 1)] * 4
    assert sum(kind == "step" for kind, _ in engine.log) <= 7


def test_a_full_table_makes_rows_wait_and_a_cancelled_row_frees_its_place() -> None:
    scheduler = Scheduler(CountingEngine(), max_rows=2)
    rows = [submit(scheduler, [20 + row], num_tokens=50) for row in range(3)]
    scheduler.take(rows[:1])
    assert [row.row is not None for row in rows] == [True, True, False]
    rows[0].cancel()
    assert rest_of(scheduler, rows[2]) == alone([22], 50)
    assert rest_of(scheduler, rows[1]) == alone([21], 50)
    assert not scheduler.take(rows[:1])


def test_numbers_that_overflow_end_their_row_alone() -> None:
    scheduler = Scheduler(CountingEngine())
    good, bad = submit(scheduler, [20]), submit(scheduler, [OVERFLOWS])
    results = []
    while ready := scheduler.take([good, bad]):
        results += ready
    assert [token.id for index, token in results if index == 0] == alone([20], 5)
    [error] = [token for index, token in results if index == 1]
    assert isinstance(error, EngineError)
    with pytest.raises(EngineError, match="overflowed"):
        rest_of(scheduler, submit(scheduler, [OVERFLOWS]))


def test_a_failure_of_the_engine_ends_all_rows_and_the_next_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = CountingEngine()
    scheduler = Scheduler(engine)
    rows = [submit(scheduler, [20]), submit(scheduler, [21])]
    with monkeypatch.context() as patch:
        patch.setattr(CountingRows, "step", lambda *_: (_ for _ in ()).throw(MemoryError("no memory")))
        for row in rows:
            with pytest.raises(MemoryError):
                rest_of(scheduler, row)
    assert rest_of(scheduler, submit(scheduler, [22])) == alone([22], 5)


def test_a_prompt_as_long_as_the_context_is_refused_with_both_numbers() -> None:
    engine = CountingEngine()
    with pytest.raises(QuestionError, match="200 tokens long, the model's context 200"):
        generate(engine, [[1] * CONTEXT])
    with pytest.raises(QuestionError, match="no tokens"):
        generate(engine, [[]])
    assert engine.log == []
    assert len(generate(engine, [[1] * (CONTEXT - 3)], max_new_tokens=50)[0]) == 3


def test_threads_share_the_steps() -> None:
    engine = CountingEngine()
    scheduler, answers = Scheduler(engine), {}
    barrier = threading.Barrier(8)

    def ask(row: int) -> None:
        generation = submit(scheduler, [20 + row], num_tokens=60)
        barrier.wait()
        answers[row] = rest_of(scheduler, generation)

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {row: alone([20 + row], 60) for row in range(8)}
    assert sum(kind == "step" for kind, _ in engine.log) < 2 * 60


def test_a_row_that_cant_join_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(CountingEngine())
    with monkeypatch.context() as patch:
        patch.setattr(CountingRows, "join", lambda *_: (_ for _ in ()).throw(ValueError("another shape")))
        with pytest.raises(ValueError, match="another shape"):
            rest_of(scheduler, submit(scheduler, [20]))
    assert rest_of(scheduler, submit(scheduler, [22])) == alone([22], 5)


def test_an_engine_that_cant_make_rows_ends_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(CountingEngine())
    rows = [submit(scheduler, [20]), submit(scheduler, [21])]
    with monkeypatch.context() as patch:
        patch.setattr(CountingEngine, "new_rows", lambda *_: (_ for _ in ()).throw(MemoryError("no memory")))
        for row in rows:
            with pytest.raises(MemoryError):
                rest_of(scheduler, row)
    assert rest_of(scheduler, submit(scheduler, [22])) == alone([22], 5)


def test_an_interrupt_is_raised_where_it_happened_and_ends_other_rows_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = Scheduler(CountingEngine())
    interrupted, other = submit(scheduler, [20]), submit(scheduler, [21])
    with monkeypatch.context() as patch:
        patch.setattr(CountingRows, "step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rest_of(scheduler, interrupted)
    with pytest.raises(EngineError, match="interrupted"):
        rest_of(scheduler, other)
    assert rest_of(scheduler, submit(scheduler, [22])) == alone([22], 5)


def test_a_row_that_is_cancelled_while_others_are_freed_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(CountingEngine(), max_rows=2)
    first, second = submit(scheduler, [20], num_tokens=50), submit(scheduler, [21], num_tokens=50)
    scheduler.take([second])
    leave = CountingRows.leave

    def leave_and_cancel(rows: CountingRows, row: int) -> None:
        leave(rows, row)
        first.cancel()  # as another thread may at any time

    monkeypatch.setattr(CountingRows, "leave", leave_and_cancel)
    second.cancel()
    following = [submit(scheduler, [30 + row]) for row in range(2)]
    assert [rest_of(scheduler, row) for row in following] == [alone([30 + row], 5) for row in range(2)]


def test_the_table_of_rows_is_made_once() -> None:
    class SizedRows(CountingRows):
        def __len__(self) -> int:
            return len(self._ids)

    class SizedEngine(CountingEngine):
        num_tables = 0

        def new_rows(self, capacity: int) -> CountingRows:
            self.num_tables += 1
            return SizedRows(capacity, self.log)

    engine = SizedEngine()
    scheduler = Scheduler(engine)
    for _ in range(3):
        assert rest_of(scheduler, submit(scheduler, [20])) == alone([20], 5)
    assert engine.num_tables == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes can't be forked here")
def test_a_forked_process_begins_without_rows_whatever_thread_had_the_lock() -> None:
    scheduler = Scheduler(CountingEngine())
    before = submit(scheduler, [20])
    reader, writer = os.pipe()
    with scheduler._lock:
        child = os.fork()
    if not child:
        try:
            threads = [threading.Thread(target=rest_of, args=(scheduler, submit(scheduler, [21]))) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with pytest.raises(EngineError, match="before this process was forked"):
                rest_of(scheduler, before)
            os.write(writer, str(rest_of(scheduler, submit(scheduler, [22]))).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == str(alone([22], 5))
    os.waitpid(child, 0)
    assert rest_of(scheduler, before) == alone([20], 5)


def test_segments_of_another_engine_are_not_used() -> None:
    class OtherEngine(CountingEngine):
        """Reads text in its own way: keys and values of other engines mean nothing to it."""

        def new_rows(self, capacity: int) -> CountingRows:
            rows = super().new_rows(capacity)
            rows.put = lambda *_: pytest.fail("a segment of another engine came")  # type: ignore[method-assign]
            return rows

    first, prompt = CountingEngine(), Prompt([20, 21, 22, 23], [[20, 21]])
    track = PrefixCache()
    for engine in (first, OtherEngine(), first):
        assert generate(engine, [prompt], prefixes=[track], max_new_tokens=5) == [alone(prompt.ids, 5)]
    first.log.clear()
    assert generate(first, [prompt], prefixes=[track], max_new_tokens=1) == [alone(prompt.ids, 1)]
    assert first.log == [("read", 2)]
