"""Prompts that go on from what was read before: they are answered as if all of it were read at once."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import pytest
import torch

from mu_llama.arrays import FloatArray
from mu_llama.engine.prefix import PrefixCache, Prompt
from mu_llama.engine.scheduler import Scheduler
from mu_llama.engine.torch.engine import TorchEngine
from mu_llama.training.phases import JOINT
from mu_llama.training.trainable import build_trainable
from tests.factories.generation import generate
from tests.unit.model.test_audio_tokens import TOKENS, parts_with_tokens

HEAD = [50, 51, 52]
QUESTIONS = [[5, 9, 11, 3], [7, 2], [8, 8, 1, 4, 30, 31]]
SAID = [[13, 14, 15, 16], [17, 18]]


@pytest.fixture
def engine() -> TorchEngine:
    return TorchEngine(build_trainable(parts_with_tokens(), phase=JOINT, lora_rank=2).eval())


@pytest.fixture
def conditioning(engine: TorchEngine) -> list[FloatArray]:
    random = np.random.default_rng(0)
    return [engine.condition(random.standard_normal((2, 7), np.float32)) for _ in range(3)]


def prompt(question: Sequence[int], said: Sequence[list[int]] = ()) -> Prompt:
    segments = [HEAD, *said]
    return Prompt([*chain.from_iterable(segments), *question], segments)


def at_once(asked: Prompt) -> Prompt:
    return Prompt(asked.ids)


def answers(
    engine: TorchEngine,
    conditioning: list[FloatArray],
    prompts: list[Prompt],
    prefixes: list[PrefixCache] | None = None,
) -> list[list[int]]:
    return generate(engine, prompts, conditioning, prefixes=prefixes, max_new_tokens=8)


@contextmanager
def widths(engine: TorchEngine) -> Iterator[list[int]]:
    """Tokens, audio tokens too, of each pass that reads more than one in a row."""
    sizes: list[int] = []

    def look(_: object, __: object, values: dict[str, torch.Tensor]) -> None:
        given = values.get("inputs_embeds")
        width = (values["input_ids"] if given is None else given).shape[1]
        if width > 1:
            sizes.append(width)

    handle = engine.model.llama.get_decoder().register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


def test_rows_go_on_from_the_head_that_their_tracks_have(engine: TorchEngine, conditioning: list[FloatArray]) -> None:
    prompts, prefixes = [prompt(question) for question in QUESTIONS], [PrefixCache() for _ in range(3)]
    expected = answers(engine, conditioning, [at_once(asked) for asked in prompts])
    assert answers(engine, conditioning[1:2], prompts[1:2], prefixes[1:2]) == expected[1:2]
    assert [len(own.segments) for own in prefixes] == [0, 1, 0]
    with widths(engine) as sizes:
        assert answers(engine, conditioning, prompts, prefixes) == expected
    head = TOKENS + len(HEAD)
    assert sizes == [head, len(QUESTIONS[0]), len(QUESTIONS[1]), head, len(QUESTIONS[2])]


def test_one_track_is_read_once_in_a_batch(engine: TorchEngine, conditioning: list[FloatArray]) -> None:
    prompts, prefix = [prompt(question) for question in QUESTIONS], PrefixCache()
    with widths(engine) as sizes:
        answers(engine, conditioning[:1] * 3, prompts, [prefix] * 3)
    assert sizes == [TOKENS + len(HEAD), *map(len, QUESTIONS)]


def test_a_conversation_goes_on_from_what_was_said(engine: TorchEngine, conditioning: list[FloatArray]) -> None:
    prefix, one = PrefixCache(), conditioning[:1]
    for turns in range(3):
        asked = prompt(QUESTIONS[turns], SAID[:turns])
        with widths(engine) as sizes:
            assert answers(engine, one, [asked], [prefix]) == answers(engine, one, [at_once(asked)])
        new = TOKENS + len(HEAD) if turns == 0 else len(SAID[turns - 1])
        assert sizes[:2] == [new, len(QUESTIONS[turns])]


def test_logits_are_the_same_to_the_bit_whenever_a_conversation_was_read(
    engine: TorchEngine, conditioning: list[FloatArray]
) -> None:
    engine.model.bfloat16()
    asked, scheduler = prompt(QUESTIONS[0], SAID), Scheduler(engine)
    segments = asked.pieces()
    assert segments == [HEAD, *SAID]

    def logits(prefix: PrefixCache) -> FloatArray:
        scheduler.read_ahead(segments, conditioning[0], prefix)
        rows = engine.new_rows(1)
        row = rows.join(conditioning[0])
        rows.put(row, [segment.state for segment in prefix.segments])
        return rows.read(row, QUESTIONS[0])

    expected = logits(PrefixCache())
    step_by_step, other = PrefixCache(), PrefixCache()
    for end in range(1, len(segments) + 1):
        scheduler.read_ahead(segments[:end], conditioning[0], step_by_step)
    scheduler.read_ahead([HEAD, SAID[0], [40, 41]], conditioning[0], other)  # edited since
    for prefix in (step_by_step, other):
        np.testing.assert_array_equal(logits(prefix), expected)


def test_what_is_asked_again_goes_on_from_where_it_parts(engine: TorchEngine, conditioning: list[FloatArray]) -> None:
    prefix, scheduler = PrefixCache(), Scheduler(engine)
    answers(engine, conditioning[:1], [prompt(QUESTIONS[0], SAID)], [prefix])
    with widths(engine) as sizes:
        for _ in range(2):
            scheduler.read_ahead([HEAD, [39, 1]], conditioning[0], prefix)
    assert sizes == [2]
    assert not prefix.segments[0].state[0][0].requires_grad  # nothing of the computation is held


@pytest.mark.parametrize("ids", [[50, 51, 9, 9], [50], [50, 51, 52]], ids=["parts", "short", "all"])
def test_a_prompt_that_does_not_begin_with_its_segments_is_read_at_once(
    engine: TorchEngine, conditioning: list[FloatArray], ids: list[int]
) -> None:
    odd, prefix = Prompt(ids, [HEAD]), PrefixCache()
    assert answers(engine, conditioning[:1], [odd], [prefix]) == answers(engine, conditioning[:1], [at_once(odd)])
    assert prefix.segments == []


def test_a_copy_in_another_process_begins_empty(engine: TorchEngine, conditioning: list[FloatArray]) -> None:
    prefix = PrefixCache()
    answers(engine, conditioning[:1], [prompt(QUESTIONS[0])], [prefix])
    assert prefix.segments
    assert pickle.loads(pickle.dumps(prefix)).segments == []  # noqa: S301
