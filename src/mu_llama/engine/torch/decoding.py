"""The decode loop: one loop over transformers' forward pass, for any number of rows, as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from mu_llama.engine.sampling import GenerationOptions, choose_token
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.errors import QuestionError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Token:
    """One token of one row."""

    row: int
    """Which of the prompts it continues."""
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


class TokenDecoder:
    """Continues prompts, all rows in one batch; iterate to get tokens, row by row within a step.

    Rows that end leave the batch. A caller that sees a stop text calls `finish(row)`; one that stops iterating
    stops the computation.

    Args:
        model: the model, in eval mode.
        prompts: token ids of each row, of any lengths; padded on the left inside.
        conditioning: (B, Q, A), or (B, N, H) with audio tokens, one row a prompt; None for text alone.
        options: how to choose tokens.
        eos_ids: tokens that end a row.
        cache: of the prompts' beginnings, from `begin_cache`; it is consumed. None prefills whole prompts.
        num_cached: how many tokens of each prompt are in the cache.

    Raises:
        QuestionError: if a prompt is empty or leaves no room for an answer.
    """

    def __init__(
        self,
        model: MuLlama,
        *,
        prompts: Sequence[Sequence[int]],
        conditioning: Tensor | None,
        options: GenerationOptions,
        eos_ids: frozenset[int],
        cache: Cache | None = None,
        num_cached: int = 0,
    ) -> None:
        self._model = model
        self._cache = cache
        self._options = options
        self._eos_ids = eos_ids
        self._rows = list(range(len(prompts)))
        self._conditioning = conditioning
        self._finished: set[int] = set()
        self._generators = [_generator(options.seed) for _ in prompts]
        self._budgets = [min(options.max_new_tokens, model.context_length - len(prompt)) for prompt in prompts]
        for prompt in prompts:
            if not prompt:
                raise QuestionError("a prompt has no tokens; expected at least one")
            check_prompt_length(len(prompt), context_length=model.context_length)
        self._ids, mask = _pad_left([prompt[num_cached:] for prompt in prompts], model.device)
        self._mask = None if mask is None else torch.cat([mask.new_ones(len(mask), num_cached), mask], dim=1)

    def finish(self, row: int) -> None:
        """Take a row out of the batch before its next token."""
        self._finished.add(row)

    def __iter__(self) -> Iterator[Token]:
        """Run the decode loop."""
        cache = self._model.new_cache() if self._cache is None else self._cache
        ids, num_written = self._ids, 0
        while self._rows:
            # Entered anew at each step: a generator must not hold a thread's grad mode across yields.
            with torch.inference_mode():
                logits = self._model(
                    ids,
                    conditioning=self._conditioning,
                    attention_mask=self._mask,
                    position_ids=self._positions(ids.shape[1]),
                    past_key_values=cache,
                    logits_to_keep=1,
                )[:, -1]
                chosen = self._choose(logits)
            num_written += 1
            for index, row in enumerate(list(self._rows)):
                token = self._judge(row, chosen[index], num_written)
                if token.finish_reason is not None:
                    self._finished.add(row)
                yield token
            remaining = [index for index, row in enumerate(self._rows) if row not in self._finished]
            if not remaining:
                return
            with torch.inference_mode():
                ids = torch.tensor([[chosen[index]] for index in remaining], device=self._model.device)
                if len(remaining) < len(self._rows):
                    self._keep_rows(cache, remaining)
                if self._mask is not None:
                    self._mask = torch.cat([self._mask, self._mask.new_ones(len(remaining), 1)], dim=1)

    def _positions(self, width: int) -> Tensor | None:
        """Positions that count real tokens only; None (count from the cache) where nothing is padded."""
        if self._mask is None:
            return None
        return (self._mask.cumsum(dim=1) - 1).clamp_min(0)[:, -width:]

    def _choose(self, logits: Tensor) -> list[int]:
        if self._options.temperature == 0.0:
            return [int(token) for token in logits.argmax(dim=-1).tolist()]
        options = self._options
        return [
            choose_token(
                logits[index],
                temperature=options.temperature,
                top_p=options.top_p,
                generator=self._generators[row],
            )
            for index, row in enumerate(self._rows)
        ]

    def _judge(self, row: int, token_id: int, num_written: int) -> Token:
        if token_id in self._eos_ids:
            return Token(row, None, "stop")
        return Token(row, token_id, "length" if num_written >= self._budgets[row] else None)

    def _keep_rows(self, cache: object, indices: list[int]) -> None:
        # On the CPU it selects from layers on any device.
        cache.batch_select_indices(torch.tensor(indices))  # type: ignore[attr-defined]
        index = torch.tensor(indices, device=self._model.device)
        self._rows = [self._rows[i] for i in indices]
        if self._conditioning is not None:
            self._conditioning = self._conditioning[index]
        if self._mask is not None:
            self._mask = self._mask[index]


def _generator(seed: int | None) -> torch.Generator | None:
    """One source a row, so that a row samples the same alone and in a batch."""
    return None if seed is None else torch.Generator().manual_seed(seed)


def _pad_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Stack prompts to (B, T) with a mask (B, T), or no mask where all are equally long."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    if all(len(prompt) == longest for prompt in prompts):
        return ids, None
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask
