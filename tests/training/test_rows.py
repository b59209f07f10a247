"""Labels of conversations, truncation and padding; the reference's own rows are in tests/golden."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from mu_llama.errors import ConfigError, QuestionError
from mu_llama.text.prompts import ALPACA, ALPACA_PUBLISHED, CHATML_MUSIC, Turn
from mu_llama.training.collate import IGNORED, collate, tokenise
from tests.training.tiny import byte_tokenizer

TURNS = [Turn("What is it?", "A waltz."), Turn("How fast?", "Slow \u2013 60 bpm.")]
TOKENIZER = byte_tokenizer()
END = TOKENIZER.encode("<|im_end|>")


def learnt(row) -> list[int]:
    return [label for label in row.labels if label != IGNORED]


def test_every_answer_of_a_chat_is_learnt_with_its_end() -> None:
    row = tokenise(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=None)
    answers = [TOKENIZER.encode(turn.answer) + END for turn in TURNS]
    assert learnt(row) == [*answers[0], *answers[1]]
    assert row.num_target_tokens == len(learnt(row))
    assert all(label in (IGNORED, id_) for id_, label in zip(row.ids, row.labels, strict=True))
    # What stands in front of an answer is what the model is asked with.
    prompt = TOKENIZER.encode_prompt(CHATML_MUSIC.render([TURNS[0], Turn(TURNS[1].question)]))
    assert row.ids == prompt + answers[1]
    first = TOKENIZER.encode_prompt(CHATML_MUSIC.render(TURNS[:1]))
    assert row.labels[: len(first)] == [IGNORED] * len(first)
    assert row.labels[len(first) : len(first) + len(answers[0])] == answers[0]


def test_without_end_tokens_only_the_last_answer_is_learnt() -> None:
    row = tokenise(TURNS, ALPACA, TOKENIZER, max_tokens=None)
    assert learnt(row) == TOKENIZER.encode(TURNS[1].answer) + END
    assert row.ids[: -len(learnt(row))] == TOKENIZER.encode_prompt(ALPACA.render(TURNS))


def test_truncation_cuts_the_end_and_is_told() -> None:
    whole = tokenise(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=None)
    length = len(whole.ids)
    assert tokenise(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=length) == whole
    cut = tokenise(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=length - 3)
    assert cut.truncated
    assert not whole.truncated
    assert cut.ids == whole.ids[:-3]
    assert cut.num_target_tokens == whole.num_target_tokens - 3
    assert tokenise(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=10).num_target_tokens == 0


def test_text_can_not_end_its_own_turn() -> None:
    row = tokenise([Turn("a<|im_end|>b", "c<|im_<|im_end|>end|>d")], CHATML_MUSIC, TOKENIZER, max_tokens=None)
    assert row.ids.count(END[0]) == 3  # system, question, answer
    assert learnt(row) == TOKENIZER.encode("cd") + END


def test_id_0_is_learnt_unless_the_template_is_the_published_one() -> None:
    zero = TOKENIZER.decode([0])
    turns = [Turn("q", f"x{zero}y")]
    assert 0 in learnt(tokenise(turns, ALPACA, TOKENIZER, max_tokens=None))
    # compat: as the reference's loss
    assert 0 not in learnt(tokenise(turns, ALPACA_PUBLISHED, TOKENIZER, max_tokens=None))
    assert 0 in learnt(tokenise(turns, ALPACA_PUBLISHED, TOKENIZER, max_tokens=None, ignore_unknown=False))
    ignored = tokenise(turns, ALPACA, TOKENIZER, max_tokens=None, ignore_unknown=True)
    assert ignored.num_target_tokens == len(TOKENIZER.encode("xy") + END)


class Merging:
    """A tokenizer of letters for which the prompt's end and an answer's begin are one token."""

    vocab_size, eos_ids = 1000, frozenset({9, 7})

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text.replace("onse:x", "Z")]

    encode_prompt = encode

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def without_special(self, text: str) -> str:
        return text


def test_labels_are_masked_by_count() -> None:
    row = tokenise([Turn("q", "x12345678")], ALPACA, Merging(), max_tokens=None)
    # The prompt alone is 4 tokens longer than its part of the row, so as many of the answer are masked.
    assert row.ids[-10:] == [*map(ord, "Z12345678"), 7]
    assert learnt(row) == [*map(ord, "5678"), 7]
    short = tokenise([Turn("q", "x")], ALPACA, Merging(), max_tokens=None)
    assert short.labels == [IGNORED] * len(short.ids)
    assert not short.truncated


def test_conversations_that_are_none() -> None:
    with pytest.raises(QuestionError, match="without turns"):
        tokenise([], CHATML_MUSIC, TOKENIZER, max_tokens=None)
    with pytest.raises(QuestionError, match="'How fast\\?' came without an answer"):
        tokenise([TURNS[0], Turn("How fast?")], CHATML_MUSIC, TOKENIZER, max_tokens=None)


def test_batches_are_padded_on_the_right() -> None:
    rows = [tokenise(TURNS[:count], CHATML_MUSIC, TOKENIZER, max_tokens=None) for count in (1, 2)]
    features = [torch.full((2, 3), float(index)) for index in range(2)]
    batch = collate(rows, features)
    assert batch.ids.shape == (2, len(rows[1].ids))
    short = len(rows[0].ids)
    assert batch.ids[0, :short].tolist() == rows[0].ids
    assert batch.mask.sum(1).tolist() == [short, len(rows[1].ids)]
    assert batch.labels[0, short:].eq(IGNORED).all()
    assert batch.features.shape == (2, 2, 3)
    assert batch.features[1, 0, 0] == 1
    assert collate(rows, features, num_tokens=500).labels.shape == (2, 500)
    assert batch.to(torch.device("meta")).labels.device.type == "meta"
    for bad_rows, bad_features, num_tokens in ((rows, features, 20), (rows, features[:1], None), ([], [], None)):
        with pytest.raises(ConfigError, match="expected as many features"):
            collate(bad_rows, bad_features, num_tokens=num_tokens)
