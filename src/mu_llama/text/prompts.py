"""Prompt templates: how a conversation becomes the text that a checkpoint family was trained on; fixed questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mu_llama.errors import ConfigError


@dataclass(frozen=True)
class Turn:
    """One question and, once there is one, its answer."""

    question: str
    answer: str | None = None


@dataclass(frozen=True)
class PromptTemplate:
    """Text around the turns of a conversation.

    The prompt is `head`, then for each turn `before + question + between + answer + after`; the last turn
    has no answer and the text ends after `between`, where the model goes on writing.
    """

    name: str
    """Key in `TEMPLATES`, stored in a model's config."""
    head: str
    """Written once, in front of the first turn."""
    before: str
    """In front of each question."""
    between: str
    """After each question; the answer starts here."""
    after: str
    """After each finished answer of an earlier turn."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer besides the end tokens."""
    end_tokens: tuple[str, ...] = ()
    """Tokens that end an answer; empty for the LLaMA's own end token, with its begin token in front of the prompt."""
    reads_measured: bool = False
    """Whether models of this family were trained on measured facts under a question; see `fact_prompts`."""

    def render(self, turns: Sequence[Turn]) -> str:
        """Build the prompt that asks for the answer of the last turn.

        Args:
            turns: the conversation, oldest first; every turn but the last has an answer.

        Raises:
            ValueError: if there is no turn or an earlier one lacks its answer.
        """
        if not turns:
            raise ValueError("a prompt needs at least one turn; none came")
        return self.open(turns[:-1]) + turns[-1].question + self.between

    def open(self, turns: Sequence[Turn]) -> str:
        """Build the text before the next question: a prefix of every prompt that continues these turns.

        Args:
            turns: the conversation so far, oldest first; none at its beginning.

        Raises:
            ValueError: if a turn lacks its answer.
        """
        text = self.head
        for turn in turns:
            if turn.answer is None:
                raise ValueError(f"an earlier turn has no answer: {turn.question!r}")
            text += self.before + turn.question + self.between + turn.answer + self.after
        return text + self.before


_ALPACA_HEAD = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)

# compat: the published weights were trained with the text of Python's builtin `input` in the input slot.
ALPACA_PUBLISHED = PromptTemplate(
    name="alpaca-published",
    head=_ALPACA_HEAD,
    before="### Instruction:\n",
    between="\n\n### Input:\n<built-in function input>\n\n### Response:",
    after="\n\n",
)

ALPACA = PromptTemplate(
    name="alpaca",
    head=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    ),
    before="### Instruction:\n",
    between="\n\n### Response:",
    after="\n\n",
)

CHATML_MUSIC = PromptTemplate(
    name="chatml-music",
    head="<|im_start|>system\nYou listen to a piece of music and answer questions about it.<|im_end|>\n",
    before="<|im_start|>user\n",
    between="<|im_end|>\n<|im_start|>assistant\n",
    after="<|im_end|>\n",
    end_tokens=("<|im_end|>", "<|endoftext|>"),
)

CHATML_MEASURED = replace(CHATML_MUSIC, name="chatml-measured", reads_measured=True)

TEMPLATES = {template.name: template for template in (ALPACA_PUBLISHED, ALPACA, CHATML_MUSIC, CHATML_MEASURED)}


def template_by_name(name: str) -> PromptTemplate:
    """Look a template up.

    Raises:
        ConfigError: if there is none of that name.
    """
    try:
        return TEMPLATES[name]
    except KeyError:
        known = ", ".join(sorted(TEMPLATES))
        raise ConfigError(f"prompt template {name!r} is unknown; expected one of: {known}") from None


FIXED_QUESTIONS = (
    "Describe the audio",
    "Describe the audio in detail",
    "What do you hear in the audio?",
    "What can be inferred from the audio?",
)
"""Asked of every track in the published MusicQA data set."""
CAPTION_QUESTIONS = {"short": FIXED_QUESTIONS[0], "long": FIXED_QUESTIONS[1]}
"""The question that `Listener.caption` asks, by its `detail`."""
TEXT_TO_MUSIC_QUESTION = "Write a caption for text-to-music."
"""Asks for a list of terms, as prompts of text-to-music models are written."""
