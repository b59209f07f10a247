"""Write with a chat model on this machine, constrained to the JSON schema; the only door to llguidance."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.utils import logging as transformers_logging

from mu_llama.checkpoints.embedded import PACKAGED, provide_llama
from mu_llama.devices import choose_device, choose_dtype
from mu_llama.errors import ConfigError, ModelNotFoundError
from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import Damaged, ReplySpec, parse_reply
from mu_llama.musicqa.writers.protocol import Prompts, Written, seed_digest

# For models whose folder names no template of their own.
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class LocalWriter:
    """A `Writer` that runs a transformers chat model; every reply is valid JSON of the schema, if it isn't cut off.

    Args:
        model: `smollm2-135m-instruct` (embedded), a folder, or a hub id.
        prompts: instructions.
        reply_spec: how much is written.
        home: cache folder, for the embedded model.
        seed: with a track's id and the attempt it seeds sampling.
        device: auto, cpu, cuda, mps.
        temperature: of sampling; 0 takes the likeliest token.
        max_tokens: longest reply.

    Raises:
        ConfigError: if llguidance isn't installed.
        ModelNotFoundError: if the model can't be had.
    """

    name = "local"
    num_at_once = 1

    def __init__(
        self,
        model: str,
        prompts: Prompts,
        reply_spec: ReplySpec,
        *,
        home: Path,
        seed: int = 0,
        device: str = "auto",
        temperature: float = 0.7,
        max_tokens: int = 1600,
    ) -> None:
        try:
            import llguidance
            import llguidance.hf
            import llguidance.torch
        except ImportError as error:
            raise ConfigError("this writer needs llguidance; run: pip install 'mu-llama[musicqa]'") from error
        self._guidance = llguidance
        self._prompts, self._reply_spec, self._seed = prompts, reply_spec, seed
        self._temperature, self._max_tokens = temperature, max_tokens
        place = choose_device(device)
        transformers_logging.disable_progress_bar()  # it would mix with the build's
        folder = str(provide_llama(PACKAGED[model], home)) if model in PACKAGED else model
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model = (
                AutoModelForCausalLM.from_pretrained(folder, dtype=choose_dtype("auto", place)).to(place).eval()
            )
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"{model}: is no chat model that transformers can open ({' '.join(str(error).split())[:200]}); "
                "expected a folder or hub id"
            ) from error
        if self._tokenizer.chat_template is None:
            self._tokenizer.chat_template = _CHATML
        self._grammar = llguidance.LLMatcher.grammar_from_json_schema(
            reply_spec.schema(), defaults={"whitespace_flexible": False}
        )
        width = int(self._model.get_output_embeddings().weight.shape[0])
        self._vocabulary = llguidance.hf.from_tokenizer(self._tokenizer, n_vocab=width)
        self._one_at_a_time = threading.Lock()

    async def write(self, track: Track, *, attempt: int) -> Written:
        """Generate in a thread; see `Writer`."""
        return await asyncio.to_thread(self._generate, track, attempt)

    def _generate(self, track: Track, attempt: int) -> Written:
        ids = self._tokenizer.apply_chat_template(
            self._prompts.messages(track, self._reply_spec),
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"].to(self._model.device)
        digest = seed_digest(self._seed, attempt, track)
        grammar = _Grammar(self._guidance, self._vocabulary, self._grammar, prompt_length=ids.shape[1])
        with self._one_at_a_time, torch.inference_mode():
            torch.manual_seed(int.from_bytes(digest[:4], "big"))
            sampling = (
                {"do_sample": True, "temperature": self._temperature} if self._temperature else {"do_sample": False}
            )
            output = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                logits_processor=LogitsProcessorList([_MaskedLogits(grammar)]),
                stopping_criteria=StoppingCriteriaList([_StopAtEnd(grammar)]),
                max_new_tokens=self._max_tokens,
                eos_token_id=self._tokenizer.eos_token_id,
                pad_token_id=self._tokenizer.eos_token_id,
                **sampling,
            )
        written = output[0, ids.shape[1] :]
        if not grammar.is_complete:
            raise Damaged(f"the reply was cut off after {len(written)} tokens")
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        return Written(parse_reply(text), prompt_tokens=int(ids.shape[1]), completion_tokens=len(written))


class _Grammar:
    """Follows a text, token by token, through what a grammar describes."""

    def __init__(self, guidance: Any, vocabulary: Any, grammar: str, *, prompt_length: int) -> None:
        self._torch = guidance.torch
        self._matcher = guidance.LLMatcher(vocabulary, grammar)
        self._mask = self._torch.allocate_token_bitmask(1, vocabulary.vocab_size)
        self._num_consumed = prompt_length

    @property
    def is_complete(self) -> bool:
        """Whether the text is whole."""
        return bool(self._matcher.is_stopped() or self._matcher.is_accepting())

    def consume(self, input_ids: torch.Tensor) -> bool:
        """Take new tokens of the one row; gives whether no token may follow."""
        for token in input_ids[0, self._num_consumed :].tolist():
            self._matcher.consume_token(token)
        self._num_consumed = input_ids.shape[1]
        return bool(self._matcher.is_stopped())

    def masked(self, scores: torch.Tensor) -> torch.Tensor:
        """Leave only tokens by which the text can still become what the grammar describes."""
        self._torch.fill_next_token_bitmask(self._matcher, self._mask, 0)
        scores = scores.float()
        self._torch.apply_token_bitmask_inplace(scores, self._mask.to(scores.device))
        return scores


class _MaskedLogits(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    def __init__(self, grammar: _Grammar) -> None:
        self._grammar = grammar

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self._grammar.masked(scores)


class _StopAtEnd(StoppingCriteria):  # type: ignore[misc]  # as above
    """Ends generation where the grammar ends, also for tokenizers that name no end token."""

    def __init__(self, grammar: _Grammar) -> None:
        self._grammar = grammar

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((1,), self._grammar.consume(input_ids), device=input_ids.device)
