"""Rows that join, read in pieces, step in any company and leave, against transformers' logits of each text alone."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mu_llama.engine.onnx import key_values
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.onnx.rows import OnnxRows
from mu_llama.errors import QuestionError
from tests.unit.engine.onnx.tiny import VOCABULARY, Sizes, engine_of, expected_logits, random_ids, random_llama

SIZES = Sizes(num_hidden_layers=2)
LLAMA = random_llama(SIZES)
NUM_AUDIO, NUM_CONDITIONED = 5, 2
TERMS = np.random.default_rng(5).standard_normal((4, NUM_CONDITIONED, 96)).astype(np.float32)
AUDIO = np.random.default_rng(6).standard_normal((4, NUM_AUDIO, 48)).astype(np.float32)


@functools.cache
def engine(kind: str = "plain", precision: str = "fp32") -> OnnxEngine:
    folder = Path(tempfile.mkdtemp())
    return engine_of(
        folder, LLAMA, SIZES, precision=precision, num_audio_tokens=NUM_AUDIO if kind == "audio" else 0,
        num_conditioned_layers=NUM_CONDITIONED if kind == "terms" else 0,
    )  # fmt: skip


def conditioning(kind: str, track: int | None) -> NDArray[np.float32] | None:
    if track is None or kind == "plain":
        return None
    return AUDIO[track] if kind == "audio" else TERMS[track]


@contextmanager
def first_positions(num: int) -> Iterator[None]:
    """Let buffers begin small, so that short texts make them grow."""
    before = key_values.FIRST_POSITIONS
    key_values.FIRST_POSITIONS = num
    try:
        yield
    finally:
        key_values.FIRST_POSITIONS = before


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_company_leaves_logits_as_they_are(data: st.DataObject) -> None:
    """Rows at random moments; each one's logits are those of its text read at once."""
    kind = data.draw(st.sampled_from(["plain", "audio", "terms"]))
    seed = data.draw(st.integers(0, 2**16))
    source = np.random.default_rng(seed)
    with first_positions(8):
        rows = engine(kind).new_rows(5)
        texts: dict[int, list[int]] = {}
        tracks: dict[int, int | None] = {}
        last: dict[int, NDArray[np.float32]] = {}
        for _ in range(data.draw(st.integers(4, 16))):
            action = data.draw(st.sampled_from(["join", "read", "step", "step", "step", "leave"]))
            if action == "join" and len(texts) < 5:
                track = data.draw(st.sampled_from([None, 0, 1, 2, 3]))
                row = rows.join(conditioning(kind, track))
                texts[row], tracks[row] = [], track
            elif action == "read" and texts:
                row = data.draw(st.sampled_from(sorted(texts)))
                ids = source.integers(0, VOCABULARY, data.draw(st.integers(1, 12))).tolist()
                last[row] = rows.read(row, ids)
                texts[row] += ids
            elif action == "step" and last:
                chosen = data.draw(st.sets(st.sampled_from(sorted(last)), min_size=1))
                tokens = {row: int(source.integers(VOCABULARY)) for row in chosen}
                last |= rows.step(tokens)
                for row, token in tokens.items():
                    texts[row].append(token)
            elif action == "leave" and texts:
                row = data.draw(st.sampled_from(sorted(texts)))
                rows.leave(row)
                for table in (texts, tracks, last):
                    table.pop(row, None)
        assert len(rows) == len(texts)
        for row, logits in last.items():
            alone = engine(kind).logits(texts[row], conditioning=conditioning(kind, tracks[row]))
            np.testing.assert_allclose(logits, alone[-1], atol=1e-4)
            if kind == "plain":
                np.testing.assert_allclose(logits, expected_logits(LLAMA, texts[row])[-1], atol=1e-4)
            begun = NUM_AUDIO if kind == "audio" and tracks[row] is not None else 0
            assert rows.length(row) == len(texts[row]) + begun


@pytest.mark.parametrize("cuts", [[1], [29], [7, 8, 20], list(range(1, 30))], ids=str)
@pytest.mark.parametrize("kind", ["plain", "audio", "terms"])
def test_reading_in_pieces_is_reading_at_once(kind: str, cuts: list[int]) -> None:
    ids = random_ids(30)
    whole = engine(kind).logits(ids, conditioning=conditioning(kind, 1))
    rows = engine(kind).new_rows(2)
    rows.read(rows.join(), [4, 5, 6])  # so that the row isn't the first in the buffer
    row = rows.join(conditioning(kind, 1))
    for start, stop in zip([0, *cuts], [*cuts, 30], strict=True):
        np.testing.assert_allclose(rows.read(row, ids[start:stop]), whole[stop - 1], atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_steps_of_ragged_rows(precision: str) -> None:
    rows = engine(precision=precision).new_rows(6)
    texts = {rows.join(): random_ids(length, seed=length) for length in (3, 40, 1, 17, 29, 8)}
    for row, ids in texts.items():
        rows.read(row, ids)
    for step in range(5):
        stepped = rows.step({row: (row + step) % VOCABULARY for row in texts})
        for row, ids in texts.items():
            ids.append((row + step) % VOCABULARY)
            alone = engine(precision=precision).logits(ids)[-1]
            np.testing.assert_allclose(stepped[row], alone, atol=1e-4 if precision == "fp32" else 0.3)


def test_company_does_not_change_a_bit_of_float_logits() -> None:
    ids = random_ids(12)
    alone = engine().new_rows(1)
    row = alone.join()
    expected = [alone.read(row, ids), *(alone.step({row: token})[row] for token in (5, 6, 7))]
    rows = engine().new_rows(4)
    others = [rows.join() for _ in range(3)]
    for other in others:
        rows.read(other, random_ids(10 + other, seed=other))
    row = rows.join()
    came = [rows.read(row, ids)]
    for num, token in enumerate((5, 6, 7)):
        came.append(rows.step({row: token, **dict.fromkeys(others[num:], 9)})[row])
    np.testing.assert_array_equal(came, expected)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_that_is_not_finite_leaves_others_alone(precision: str) -> None:
    rows = engine("audio", precision).new_rows(3)
    broken = rows.join(np.full((NUM_AUDIO, 48), np.nan, np.float32))
    well = rows.join(AUDIO[0])
    assert np.isnan(rows.read(broken, [1, 2])).any()
    rows.read(well, [1, 2])
    stepped = rows.step({broken: 3, well: 3})
    assert np.isnan(stepped[broken]).any()
    alone = engine("audio", precision).logits([1, 2, 3], conditioning=AUDIO[0])[-1]
    np.testing.assert_allclose(stepped[well], alone, atol=1e-4 if precision == "fp32" else 0.3)
    rows.leave(broken)
    again = rows.join(AUDIO[1])  # where the broken row's keys and values are
    rows.read(again, [7])
    expected = engine("audio", precision).logits([7, 8], conditioning=AUDIO[1])[-1]
    np.testing.assert_allclose(
        rows.step({again: 8, well: 1})[again], expected, atol=1e-4 if precision == "fp32" else 0.3
    )


@pytest.mark.parametrize("kind", ["plain", "audio", "terms"])
def test_segments_begin_other_rows(kind: str) -> None:
    ids = random_ids(30)
    rows = engine(kind).new_rows(2)
    first = rows.join(conditioning(kind, 2))
    rows.read(first, ids[:10])
    head = rows.take(first, 0, rows.length(first))
    start = rows.length(first)
    rows.read(first, ids[10:20])
    turn = rows.take(first, start, rows.length(first))
    rows.leave(first)
    row = rows.join(conditioning(kind, 2))
    rows.put(row, [head, turn.first(7)])
    whole = engine(kind).logits(ids, conditioning=conditioning(kind, 2))
    assert rows.length(row) == head.num_positions + 7
    np.testing.assert_allclose(rows.read(row, ids[17:]), whole[-1], atol=1e-5)


def test_segments_are_copies_and_checked() -> None:
    rows = engine().new_rows(2)
    row = rows.join()
    rows.read(row, [1, 2, 3])
    segment = rows.take(row, 0, 2)
    before = segment.keys_values.copy()
    rows.leave(row)
    row = rows.join()
    rows.read(row, [9, 9, 9])
    np.testing.assert_array_equal(segment.keys_values, before)
    with pytest.raises(ValueError, match="read 3 positions; expected an empty one"):
        rows.put(row, [segment])
    with pytest.raises(ValueError, match="positions 1 to 4 of a row of 3"):
        rows.take(row, 1, 4)
    empty = rows.join()
    rows.put(empty, [])
    assert rows.length(empty) == 0


def test_a_full_table_makes_rows_wait() -> None:
    rows = engine().new_rows(2)
    first = rows.join()
    second = rows.join()
    with pytest.raises(QuestionError, match=r"2 rows are in use.*wait until one leaves"):
        rows.join()
    rows.leave(first)
    third = rows.join()
    assert third not in (first, second)


def test_what_is_longer_than_the_context_is_refused_before_it_runs() -> None:
    rows = engine("audio").new_rows(1)
    assert engine("audio").context_length == 295
    row = rows.join(AUDIO[0])
    with pytest.raises(QuestionError, match="296 tokens long, the model's context 295"):
        rows.read(row, [1] * 296)
    assert rows.length(row) == 0
    rows.read(row, random_ids(294))
    rows.step({row: 1})
    with pytest.raises(QuestionError, match="296 tokens long, the model's context 295"):
        rows.step({row: 1})
    assert rows.length(row) == 300


def test_the_whole_context_is_that_of_transformers() -> None:
    ids = random_ids(300)
    rows = engine().new_rows(1)
    row = rows.join()
    rows.read(row, ids[:250])  # the buffer grows after this
    rows.read(row, ids[250:290])
    for token in ids[290:]:
        logits = rows.step({row: token})[row]
    np.testing.assert_allclose(logits, expected_logits(LLAMA, ids)[-1], atol=1e-4)


def test_wrong_calls_are_refused() -> None:
    rows = engine("terms").new_rows(1)
    with pytest.raises(ValueError, match=r"conditioning has shape \(3, 4\); expected \(2, 96\)"):
        rows.join(np.zeros((3, 4), np.float32))
    row = rows.join()
    with pytest.raises(ValueError, match="has read nothing"):
        rows.step({row: 1})
    with pytest.raises(QuestionError, match="no tokens"):
        rows.read(row, [])
    assert rows.step({}) == {}


def test_rows_stepped_together_move_only_if_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged = []
    exchange = OnnxRows._exchange

    def count(rows: OnnxRows, *pair: object) -> None:
        exchanged.append(pair)
        exchange(rows, *pair)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxRows, "_exchange", count)
    rows = engine().new_rows(5)
    ids = [rows.join() for _ in range(5)]
    for row in ids:
        rows.read(row, [row, 1])
    for chosen in (ids, ids[1:4], ids[:1], ids[3:]):
        rows.step(dict.fromkeys(chosen, 2))
    assert exchanged == []
    for _ in range(3):  # one exchange, and then they are neighbours
        rows.step(dict.fromkeys((ids[0], ids[2], ids[3]), 2))
    assert len(exchanged) == 1


def test_memory_of_a_long_text_goes_back_when_all_have_left() -> None:
    with first_positions(16):
        rows = engine().new_rows(1)
        row = rows.join()
        rows.read(row, random_ids(100))
        assert rows._buffer.size_bytes > 0
        rows.leave(row)
        assert rows._buffer.size_bytes == 0
        rows.read(rows.join(), [1])


def test_memory_of_many_rows_goes_back_when_all_have_left() -> None:
    rows = engine().new_rows(4)
    ids = [rows.join() for _ in range(3)]
    for row in ids:
        rows.read(row, [1])
    for row in ids:
        rows.leave(row)
    assert rows._buffer.size_bytes == 0
