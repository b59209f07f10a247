"""Conversations to token rows with labels, rows to padded batches, and the loss of a batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mu_llama.checkpoints.load import open_tokenizer
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.errors import ConfigError, QuestionError
from mu_llama.text.prompts import ALPACA_PUBLISHED, PromptTemplate, Turn
from mu_llama.text.tokenizer import Tokenizer
from mu_llama.training.example import DataError, Example
from mu_llama.training.features import Features
from mu_llama.training.sampler import MicroBatch

IGNORED = -100
"""Label of a token that is no target."""
_PADDING = 0
_UNKNOWN = 0


@dataclass(frozen=True)
class TokenizedRow:
    """One conversation as tokens."""

    ids: list[int]
    """Prompt and answers."""
    labels: list[int]
    """The same ids where the model learns to write them, `IGNORED` elsewhere."""
    num_target_tokens: int
    """How many labels aren't `IGNORED`; 0 if truncation left nothing to learn."""
    truncated: bool
    """Whether tokens were cut off at the end."""


@dataclass(frozen=True)
class Batch:
    """Rows of one micro-batch, padded on the right."""

    ids: Tensor
    """(B, T) int64."""
    labels: Tensor
    """(B, T) int64, `IGNORED` where there is nothing to learn."""
    mask: Tensor
    """(B, T) int64, 1 for real tokens and 0 for padding."""
    features: Tensor
    """(B, L, D) of each row's track."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """Move to a device."""
        moved = (x.to(device, non_blocking=non_blocking) for x in (self.ids, self.labels, self.mask, self.features))
        return Batch(*moved)


def tokenize(
    turns: Sequence[Turn],
    template: PromptTemplate,
    tokenizer: Tokenizer,
    *,
    max_tokens: int | None,
    ignore_unknown: bool | None = None,
) -> TokenizedRow:
    """Turn a conversation into ids and labels.

    A template with `end_tokens` has every answer as a target, each with the first end token after it. Others
    have only the last one, with the LLaMA's own end token. Labels are masked by count: prompt, and prompt with answer,
    are tokenized separately, and as many tokens as the prompt has are ignored.

    Args:
        turns: the conversation, oldest first, each with its answer.
        template: text around the turns.
        tokenizer: of the LLaMA.
        max_tokens: longer rows are cut at the end, end token included; None for no limit.
        ignore_unknown: whether a label of id 0 is ignored too, as the reference does; None does so for its template.

    Raises:
        QuestionError: if there is no turn or a turn lacks its answer.
    """
    clean = tokenizer.without_special  # so that text from a data set can't end its own turn
    turns = [Turn(clean(turn.question), clean(_answer(turn))) for turn in turns]
    if not turns:
        raise QuestionError("a conversation without turns came; expected at least one question with its answer")
    ids: list[int] = []
    labels: list[int] = []
    for index in range(len(turns)) if template.end_tokens else [len(turns) - 1]:
        prompt = template.render(turns[: index + 1])
        num_prompt = len(tokenizer.encode_prompt(prompt))
        ids = _with_answer(prompt, _answer(turns[index]), template, tokenizer)
        # compat: by count, so a token in which prompt and answer merge is ignored.
        labels = (labels + [IGNORED] * (num_prompt - len(labels)) + ids[num_prompt:])[: len(ids)]
    if template.name == ALPACA_PUBLISHED.name if ignore_unknown is None else ignore_unknown:
        # compat: the reference's loss ignores id 0, which is its padding and `<unk>`.
        labels = [IGNORED if label == _UNKNOWN else label for label in labels]
    cut = labels[:max_tokens]
    num_targets = len(cut) - cut.count(IGNORED)
    return TokenizedRow(ids[:max_tokens], cut, num_target_tokens=num_targets, truncated=len(cut) < len(labels))


def _answer(turn: Turn) -> str:
    if turn.answer is None:
        raise QuestionError(f"the question {turn.question!r} came without an answer; training needs one for each")
    return turn.answer


def _with_answer(prompt: str, answer: str, template: PromptTemplate, tokenizer: Tokenizer) -> list[int]:
    if template.end_tokens:
        return tokenizer.encode_prompt(prompt + answer + template.end_tokens[0])
    return [*tokenizer.encode_prompt(prompt + answer), min(tokenizer.eos_ids)]


def collate(rows: Sequence[TokenizedRow], features: Sequence[Tensor], *, num_tokens: int | None = None) -> Batch:
    """Pad rows to one length.

    Args:
        rows: of one micro-batch.
        features: (L, D) of each row's track.
        num_tokens: T; None for the longest row.

    Raises:
        ConfigError: if a row is longer than `num_tokens`, or rows and features differ in number.

    Example:
        >>> row = TokenizedRow([1, 5, 2], [IGNORED, 5, 2], num_target_tokens=2, truncated=False)
        >>> collate([row], [torch.zeros(1, 4)], num_tokens=4).labels
        tensor([[-100,    5,    2, -100]])
    """
    longest = max((len(row.ids) for row in rows), default=0)
    width = longest if num_tokens is None else num_tokens
    if longest > width or len(rows) != len(features) or not rows:
        raise ConfigError(
            f"{len(rows)} rows of up to {longest} tokens and {len(features)} features came; expected as many features "
            f"as rows, at least one, and at most {width} tokens"
        )

    def padded(values: list[int], padding: int) -> list[int]:
        return values + [padding] * (width - len(values))

    return Batch(
        ids=torch.tensor([padded(row.ids, _PADDING) for row in rows]),
        labels=torch.tensor([padded(row.labels, IGNORED) for row in rows]),
        mask=torch.tensor([padded([1] * len(row.ids), 0) for row in rows]),
        features=torch.stack(list(features)),
    )


@dataclass(frozen=True)
class TokenizedExamples:
    """Examples as token rows."""

    rows: tuple[TokenizedRow, ...]
    """Each with at least one target token."""
    examples: tuple[Example, ...]
    """The example of each row."""
    num_truncated: int
    """Rows that were cut."""
    num_empty: int
    """Examples left out, because the cut took the whole answer."""


def tokenize_examples(examples: Sequence[Example], parts: ModelSpec, *, max_tokens: int) -> TokenizedExamples:
    """Tokenize examples; count rows that are cut, and leave out and count those whose whole answer was cut off.

    Raises:
        DataError: if nothing is left.
    """
    tokenizer: Any = open_tokenizer(parts.llama, parts.template)
    limit = min(max_tokens, int(parts.llama.config.max_position_embeddings))
    rows = [tokenize(example.turns, parts.template, tokenizer, max_tokens=limit) for example in examples]
    usable = [(row, example) for row, example in zip(rows, examples, strict=True) if row.num_target_tokens]
    if not usable:
        raise DataError(f"no answer is left of {len(examples)} examples at data.max_tokens={max_tokens}; raise it")
    counts = Counter(row.truncated for row in rows)
    return TokenizedExamples(
        tuple(row for row, _ in usable),
        tuple(example for _, example in usable),
        num_truncated=counts[True],
        num_empty=len(rows) - len(usable),
    )


def make_batch(
    batch: MicroBatch, tokenized: TokenizedExamples, features: Features, device: torch.device, *, seed: int | None
) -> Batch:
    """Collate the rows of a micro-batch on a device; `seed` is that of augmentation, None for none."""
    examples = [tokenized.examples[row] for row in batch.rows]
    rng = None if seed is None else random.Random(f"{seed}/{batch.position}")
    vectors = [features.of(example, rng=rng) for example in examples]
    return collate([tokenized.rows[row] for row in batch.rows], vectors).to(device)


def answer_loss(model: MuLlama, batch: Batch) -> Tensor:
    """Compute the mean cross entropy over all target tokens of a batch.

    Logits are computed only where there is a target. The mask isn't needed: attention is causal and the padding is on
    the right, so no target sees it, and without a mask attention takes its fastest path.

    Args:
        model: as `build_trainable` makes it.
        batch: on the model's device.

    Returns:
        A float32 scalar with gradients; without any target it is 0, with gradients of 0 rather than none, so that
        processes that train together stay in step.
    """
    # As in use: in float32, whatever the LLaMA computes in.
    with torch.autocast(batch.features.device.type, enabled=False):
        conditioning = model.condition(batch.features)
    output = model.llama.get_decoder()(**model.inputs(batch.ids, conditioning), use_cache=False)
    hidden: Tensor = output.last_hidden_state[:, -batch.ids.shape[1] :]  # (B, T, H), of the text
    head = model.llama.get_output_embeddings()
    targets = batch.labels[:, 1:]
    is_target = targets != IGNORED  # (B, T - 1)
    if not is_target.any():
        nothing: Tensor = head(hidden[:, :1]).float().mean() * 0
        return nothing
    logits = head(hidden[:, :-1][is_target]).float()  # (B, T - 1, H) -> (targets, H) -> (targets, vocabulary)
    return nn.functional.cross_entropy(logits, targets[is_target])


class AnswerLoss(nn.Module):
    """Wraps a model so that its forward pass is the loss: DDP and FSDP then see every parameter used.

    Args:
        model: as `build_trainable` makes it.
    """

    def __init__(self, model: MuLlama) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """Compute `answer_loss`."""
        return answer_loss(self.model, batch)
