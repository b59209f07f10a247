"""Prompts that go on from what was read before: they are answered as if all of it were read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import pytest
import torch
from torch import Tensor

from mu_llama.engine.sampling import GenerationOptions
from mu_llama.engine.torch.cache import PrefixCache, Prompt, begin_cache, read_segments
from mu_llama.engine.torch.decoding import TokenDecoder
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.training.phases import JOINT
from mu_llama.training.trainable import build_trainable
from tests.unit.model.test_audio_tokens import TOKENS, parts_with_tokens

HEAD = [50, 51, 52]
QUESTIONS = [[5, 9, 11, 3], [7, 2], [8, 8, 1, 4, 30, 31]]
SAID = [[13, 14, 15, 16], [17, 18]]


@pytest.fixture
def model() -> MuLlama:
    return build_trainable(parts_with_tokens(), phase=JOINT, lora_rank=2).eval()


@pytest.fixture
def conditioning(model: MuLlama) -> Tensor:
    with torch.no_grad():
        return model.condition(torch.randn(3, 2, 7))


def prompt(question: Sequence[int], said: Sequence[list[int]] = ()) -> Prompt:
    segments = [HEAD, *said]
    return Prompt([*chain.from_iterable(segments), *question], segments)


def written(
    model: MuLlama, conditioning: Tensor, prompts: list[Prompt], kept: list[PrefixCache] | None
) -> list[list[int]]:
    """The answers; without kept prefixes, of prompts that are read at once."""
    cache, num_cached = (None, 0) if kept is None else begin_cache(model, conditioning, prompts, kept)
    decoder = TokenDecoder(
        model, prompts=[prompt.ids for prompt in prompts], conditioning=conditioning, eos_ids=frozenset(),
        options=GenerationOptions(max_new_tokens=8), cache=cache, num_cached=num_cached,
    )  # fmt: skip
    found: list[list[int]] = [[] for _ in prompts]
    for token in decoder:
        assert token.id is not None
        found[token.row].append(token.id)
    return found


@contextmanager
def passes(model: MuLlama) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens, audio tokens too, of each pass through the decoder."""
    sizes: list[tuple[int, int]] = []

    def look(_: object, __: object, values: dict[str, Tensor]) -> None:
        given = values.get("inputs_embeds")
        shape = (values["input_ids"] if given is None else given).shape
        sizes.append((shape[0], shape[1]))

    handle = model.llama.get_decoder().register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


def test_rows_go_on_from_the_head_that_their_tracks_keep(model: MuLlama, conditioning: Tensor) -> None:
    prompts, kept = [prompt(question) for question in QUESTIONS], [PrefixCache() for _ in range(3)]
    expected = written(model, conditioning, prompts, None)
    assert written(model, conditioning[1:2], prompts[1:2], kept[1:2]) == expected[1:2]
    assert [len(own.segments) for own in kept] == [0, 1, 0]
    with passes(model) as sizes:
        assert written(model, conditioning, prompts, kept) == expected
        order = [2, 0, 0]
        again = written(model, conditioning[order], [prompts[row] for row in order], [kept[row] for row in order])
    assert again == [expected[row] for row in order]
    longest = max(map(len, QUESTIONS))
    assert sizes[:2] == [(2, TOKENS + len(HEAD)), (3, longest)]
    assert sizes.count((3, longest)) == 2
    assert not any(width > longest for _, width in sizes[1:])


def test_a_conversation_goes_on_from_what_was_said(model: MuLlama, conditioning: Tensor) -> None:
    kept, one = PrefixCache(), conditioning[:1]
    for turns in range(3):
        asked = [prompt(QUESTIONS[turns], SAID[:turns])]
        with passes(model) as sizes:
            assert written(model, one, asked, [kept]) == written(model, one, asked, None)
        new = TOKENS + len(HEAD) if turns == 0 else len(SAID[turns - 1])
        assert sizes[:2] == [(1, new), (1, len(QUESTIONS[turns]))]


def test_an_answer_is_the_same_to_the_bit_whenever_its_conversation_was_read(
    model: MuLlama, conditioning: Tensor
) -> None:
    half = model.bfloat16()
    asked = prompt(QUESTIONS[0], SAID)

    def logits(kept: PrefixCache) -> Tensor:
        cache, used = begin_cache(half, conditioning[:1], [asked], [kept])
        rest = torch.tensor([asked.ids[used:]])
        return half(rest, conditioning=conditioning[:1], past_key_values=cache)

    with torch.no_grad():
        expected = logits(PrefixCache())
        ahead, step_by_step, other = PrefixCache(), PrefixCache(), PrefixCache()
        read_segments(half, conditioning[0], asked.segments, ahead)
        for end in range(1, len(asked.segments) + 1):
            read_segments(half, conditioning[0], asked.segments[:end], step_by_step)
        read_segments(half, conditioning[0], [HEAD, SAID[0], [40, 41]], other)  # edited since
        for kept in (ahead, step_by_step, other):
            assert torch.equal(logits(kept), expected)


def test_what_is_asked_again_goes_on_from_where_it_parts(model: MuLlama, conditioning: Tensor) -> None:
    kept, one = PrefixCache(), conditioning[:1]
    written(model, one, [prompt(QUESTIONS[0], SAID)], [kept])
    with passes(model) as sizes:
        read_segments(model, one[0], [HEAD, [39, 1]], kept)
        read_segments(model, one[0], [HEAD, [39, 1]], kept)
    assert sizes == [(1, 2)]


@pytest.mark.parametrize("ids", [[50, 51, 9, 9], [50], [50, 51, 52]], ids=["parts", "short", "all"])
def test_tokens_that_run_over_the_end_of_the_head_are_read_anew(
    model: MuLlama, conditioning: Tensor, ids: list[int]
) -> None:
    odd, kept = Prompt(ids, [HEAD]), [PrefixCache() for _ in range(2)]
    assert written(model, conditioning[:1], [odd], kept[:1]) == written(model, conditioning[:1], [odd], None)
    both = [odd, prompt(QUESTIONS[0])]
    assert written(model, conditioning[:2], both, kept) == written(model, conditioning[:2], both, None)


def test_one_track_is_read_once_in_a_batch(model: MuLlama, conditioning: Tensor) -> None:
    kept, same = PrefixCache(), conditioning[:1].expand(3, -1, -1)
    prompts = [prompt(question) for question in QUESTIONS]
    with passes(model) as sizes:
        cache, used = begin_cache(model, same, prompts, [kept] * 3)
    assert sizes == [(1, TOKENS + len(HEAD))]
    assert cache.get_seq_length() == TOKENS + used
    assert used == len(HEAD)
    assert not cache.layers[0].keys.requires_grad  # nothing of the computation is held


def test_without_segments_nothing_is_kept(model: MuLlama, conditioning: Tensor) -> None:
    cache, used = begin_cache(model, conditioning[:1], [Prompt([1, 2], [])], [PrefixCache()])
    assert (cache.get_seq_length(), used) == (0, 0)
