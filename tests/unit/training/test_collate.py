"""Conversations become rows with labels and padded batches; the loss equals the plain computation over all logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch

from mu_llama.errors import ConfigError, QuestionError
from mu_llama.text.prompts import ALPACA, ALPACA_PUBLISHED, CHATML_MUSIC, Turn
from mu_llama.training.collate import IGNORED, AnswerLoss, answer_loss, collate, tokenize
from mu_llama.training.phases import PHASES, Phase
from mu_llama.training.trainable import build_trainable
from tests.factories.llama import tiny_batch, tiny_parts
from tests.factories.tokenizer import byte_tokenizer

TURNS = [Turn("What is it?", "A waltz."), Turn("How fast?", "Slow \u2013 60 bpm.")]
TOKENIZER = byte_tokenizer()
END = TOKENIZER.encode("<|im_end|>")


def learnt(row) -> list[int]:
    return [label for label in row.labels if label != IGNORED]


def test_every_answer_of_a_chat_is_learnt_with_its_end() -> None:
    row = tokenize(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=None)
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
    row = tokenize(TURNS, ALPACA, TOKENIZER, max_tokens=None)
    assert learnt(row) == TOKENIZER.encode(TURNS[1].answer) + END
    assert row.ids[: -len(learnt(row))] == TOKENIZER.encode_prompt(ALPACA.render(TURNS))


def test_truncation_cuts_the_end_and_is_reported() -> None:
    whole = tokenize(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=None)
    length = len(whole.ids)
    assert tokenize(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=length) == whole
    cut = tokenize(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=length - 3)
    assert cut.truncated
    assert not whole.truncated
    assert cut.ids == whole.ids[:-3]
    assert cut.num_target_tokens == whole.num_target_tokens - 3
    assert tokenize(TURNS, CHATML_MUSIC, TOKENIZER, max_tokens=10).num_target_tokens == 0


def test_text_can_not_end_its_turn() -> None:
    row = tokenize([Turn("a<|im_end|>b", "c<|im_<|im_end|>end|>d")], CHATML_MUSIC, TOKENIZER, max_tokens=None)
    assert row.ids.count(END[0]) == 3  # system, question, answer
    assert learnt(row) == TOKENIZER.encode("cd") + END


def test_id_0_is_learnt_unless_the_template_is_the_published_one() -> None:
    zero = TOKENIZER.decode([0])
    turns = [Turn("q", f"x{zero}y")]
    assert 0 in learnt(tokenize(turns, ALPACA, TOKENIZER, max_tokens=None))
    # compat: as the reference's loss
    assert 0 not in learnt(tokenize(turns, ALPACA_PUBLISHED, TOKENIZER, max_tokens=None))
    assert 0 in learnt(tokenize(turns, ALPACA_PUBLISHED, TOKENIZER, max_tokens=None, ignore_unknown=False))
    ignored = tokenize(turns, ALPACA, TOKENIZER, max_tokens=None, ignore_unknown=True)
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
    row = tokenize([Turn("q", "x12345678")], ALPACA, Merging(), max_tokens=None)
    # The prompt alone is 4 tokens longer than its part of the row, so as many of the answer are masked.
    assert row.ids[-10:] == [*map(ord, "Z12345678"), 7]
    assert learnt(row) == [*map(ord, "5678"), 7]
    short = tokenize([Turn("q", "x")], ALPACA, Merging(), max_tokens=None)
    assert short.labels == [IGNORED] * len(short.ids)
    assert not short.truncated


def test_conversations_that_are_none() -> None:
    with pytest.raises(QuestionError, match="without turns"):
        tokenize([], CHATML_MUSIC, TOKENIZER, max_tokens=None)
    with pytest.raises(QuestionError, match="'How fast\\?' came without an answer"):
        tokenize([TURNS[0], Turn("How fast?")], CHATML_MUSIC, TOKENIZER, max_tokens=None)


def test_batches_are_padded_on_the_right() -> None:
    rows = [tokenize(TURNS[:count], CHATML_MUSIC, TOKENIZER, max_tokens=None) for count in (1, 2)]
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


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_it_equals_the_plain_computation_with_a_mask(phase: Phase) -> None:
    model, batch = build_trainable(tiny_parts(), phase=phase).train(), tiny_batch(rows=3)
    logits = model(batch.ids, conditioning=model.condition(batch.features), attention_mask=batch.mask)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED
    )
    expected.backward()
    wanted = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    model.zero_grad()
    loss = AnswerLoss(model)(batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for name, gradient in wanted.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_no_target_gives_gradients_of_zero(phase: Phase) -> None:
    model, batch = build_trainable(tiny_parts(), phase=phase), tiny_batch()
    loss = answer_loss(model, dataclasses.replace(batch, labels=torch.full_like(batch.labels, IGNORED)))
    loss.backward()
    assert loss.item() == 0.0
    for name, value in model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, name
            assert not value.grad.any(), name


def test_padding_changes_nothing() -> None:
    model, batch = build_trainable(tiny_parts(), phase=PHASES["joint"]), tiny_batch(rows=1)
    wider = dataclasses.replace(
        batch,
        ids=torch.nn.functional.pad(batch.ids, (0, 5)),
        labels=torch.nn.functional.pad(batch.labels, (0, 5), value=IGNORED),
    )
    assert answer_loss(model, wider).item() == pytest.approx(answer_loss(model, batch).item(), abs=1e-6)
