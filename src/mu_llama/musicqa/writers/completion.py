"""What a chat completion holds: the text of its answer, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mu_llama.musicqa.writers.protocol import Damaged

_TEXT_PARTS = ("text", "output_text")
_REASONING_FIELDS = ("reasoning_content", "reasoning")


@dataclass(frozen=True)
class Completion:
    """The text that a server gave."""

    text: str
    """The message's content; its reasoning may still be in it, see `thinking`."""
    is_cut: bool
    """Whether it ended because no more tokens were allowed."""
    prompt_tokens: int
    """Tokens read, as the server counts them."""
    completion_tokens: int
    """Tokens written, reasoning included."""

    def damaged(self, problem: str) -> Damaged:
        """Make an error of this completion, with what it cost, and what to do where it was cut off."""
        if self.is_cut:
            problem += f"; cut off after {self.completion_tokens or 'all'} tokens: raise --max-tokens"
        return Damaged(problem, prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)


def read_completion(completion: Any) -> Completion:
    """Read a completion of the OpenAI client.

    Content may be text, a list of parts of which only those of text count, or missing beside reasoning.

    Raises:
        Damaged: if there is no text in it.
    """
    try:
        choice = completion.choices[0]
        message = choice.message
        content = message.content
    except (AttributeError, LookupError, TypeError):
        raise Damaged("the server's reply has no text") from None
    usage = getattr(completion, "usage", None)
    read = Completion(
        "\n".join(_texts(content)),
        getattr(choice, "finish_reason", None) == "length",
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
    )
    if read.text.strip():
        return read
    if any(getattr(message, name, None) for name in _REASONING_FIELDS) or isinstance(content, list):
        raise read.damaged("the server's reply is all reasoning and has no answer")
    raise read.damaged("the server's reply has no text")


def _texts(content: Any) -> Iterator[str]:
    """The texts of a message's content, without reasoning, pictures and the like."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                yield part
            elif isinstance(part, Mapping) and part.get("type", "text") in _TEXT_PARTS:
                text = part.get("text")
                yield from _texts(text.get("value") if isinstance(text, Mapping) else text)


def _count(usage: Any, name: str) -> int:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) else 0
