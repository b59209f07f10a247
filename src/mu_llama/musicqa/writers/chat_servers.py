"""Chat servers: parameters that they refuse, completions that they give, and secrets in their error messages."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mu_llama.musicqa.reply import Damaged

_TEXT_PARTS = ("text", "output_text")
_REASONING_FIELDS = ("reasoning_content", "reasoning")


@dataclass(frozen=True)
class Completion:
    """A chat completion."""

    text: str
    """The message's content; its reasoning may still be in it, see `without_thinking`."""
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


_LIMITS = ("max_tokens", "max_completion_tokens")
_NAMED = re.compile(rf"\b({'|'.join(_LIMITS)}|temperature|seed|response_format|json_schema|json_object)\b")
_FORMAT_WORDS = ("response_format", "json_schema", "json_object")
_REFUSAL = re.compile(
    r"support|unknown|unrecogni[sz]ed|unexpected|extra|permitted|allowed|accepted|available|implemented|invalid|"
    r"instead|only|must|should|deprecated|removed|forbidden|cannot|can't|required|no such",
    re.IGNORECASE,
)
_PLAIN_REFUSAL = re.compile(
    r"unsupported|not (?:be )?(?:support|permit|allow|accept|recogni)|n't (?:support|accept)|"
    r"unknown|unrecogni|unexpected|extra|deprecated|removed|instead",
    re.IGNORECASE,
)
_ABOUT_LENGTH = re.compile(
    r"context (?:length|window|size)|too (?:large|long|many|big|high)|at most|exceed|less than|greater than|"
    r"maximum|reduce",
    re.IGNORECASE,
)


class RequestParameters:
    """Parameters of chat requests beside model and messages; what a server refuses by name isn't sent again.

    Many requests may be in flight when the first is refused: each passes what it had sent, so that none fails by a
    parameter that is already learned.

    Args:
        temperature: of sampling.
        max_tokens: longest reply.
        formats: values of `response_format`, the most wanted first; None sends none.
    """

    def __init__(self, *, temperature: float, max_tokens: int, formats: Sequence[Mapping[str, Any] | None]) -> None:
        self._temperature, self._max_tokens, self._formats = temperature, max_tokens, formats
        self._limit: str | None = _LIMITS[0]
        self._dropped: set[str] = set()
        self.form = 0
        """Which of the formats is sent."""

    def of_request(self, seed: int, form: int) -> dict[str, Any]:
        """Give the parameters to send now.

        Args:
            seed: of this request.
            form: which of the formats.
        """
        values: dict[str, Any] = {"temperature": self._temperature, "seed": seed}
        if self._limit is not None:
            values[self._limit] = self._max_tokens
        if self._formats[form] is not None:
            values["response_format"] = self._formats[form]
        return {name: value for name, value in values.items() if name not in self._dropped}

    def next_form(self, form: int) -> int | None:
        """Give the format to try after one; None after the last."""
        return form + 1 if form + 1 < len(self._formats) else None

    def learn(self, body: object, text: str, sent: Mapping[str, Any], form: int) -> bool:
        """Learn from a refusal; what changes is reported once, as a warning.

        Args:
            body: of the server's answer, taken apart as far as it is JSON.
            text: of the server's answer.
            sent: parameters of the refused request.
            form: which format it had.

        Returns:
            Whether the refusal names a parameter that was sent.
        """
        name = refused_parameter(body, text)
        if name in _LIMITS:
            limit_name = next((limit for limit in _LIMITS if limit in sent), None)
            if limit_name is not None and limit_name == self._limit:
                following = _LIMITS.index(limit_name) + 1
                self._limit = _LIMITS[following] if following < len(_LIMITS) else None
                _report(limit_name, f"{self._limit} is sent instead" if self._limit else "replies may have any length")
            return limit_name is not None
        if name == "response_format" and name in sent:
            following_form = self.next_form(form)
            if following_form is not None and form == self.form:
                self.form = following_form
                _report(f"response_format {sent[name]['type']}", "JSON is asked for in another way")
            return following_form is not None
        if name is None or name not in sent:
            return False
        if name not in self._dropped:
            self._dropped.add(name)
            _report(f"{name} {sent[name]}" if name == "temperature" else name, "it is left out")
        return True


def refused_parameter(body: object, text: str) -> str | None:
    """Find the parameter that a server refuses, in the fields of its error or else in its words.

    Args:
        body: of the server's answer.
        text: of the server's answer.

    Returns:
        None if it is about none of ours, or about how long prompt and reply are together.

    Example:
        >>> refused_parameter(None, "Unsupported parameter: 'seed' is not supported with this model.")
        'seed'
    """
    fields = [name for field in _fields(body) for name in _NAMED.findall(field)]
    named = fields or (_NAMED.findall(text) if _REFUSAL.search(text) else [])
    if not named or (named[0] in _LIMITS and is_about_length(text)):
        return None
    return "response_format" if named[0] in _FORMAT_WORDS else str(named[0])


def is_about_length(text: str) -> bool:
    """Whether a refusal is about how long a prompt or its reply is, which differs from track to track."""
    return _ABOUT_LENGTH.search(text) is not None and _PLAIN_REFUSAL.search(text) is None


def _fields(body: object) -> Iterator[str]:
    """Where an error says which parameter it is about: OpenAI's `param`, FastAPI's `loc`."""
    if isinstance(body, Mapping):
        for key, value in body.items():
            if key == "param" and isinstance(value, str):
                yield value
            elif key == "loc" and isinstance(value, list):
                yield ".".join(map(str, value))
            else:
                yield from _fields(value)
    elif isinstance(body, list):
        for item in body:
            yield from _fields(item)


def _report(what: str, then: str) -> None:
    warnings.warn(f"the server refuses {what}; {then} from now on", stacklevel=3)


_MASK = "[key]"
_SECRETS = re.compile(
    r"""
    (?:authorization|api[-_ ]?key|(?:access|auth)[-_ ]?token|secret|password)["']?\s*(?:provided)?\s*[:=]\s*
        ["']?(?:(?:bearer|basic)\s+)?(?P<value>[^\s"',;}]+)
    | \bbearer\s+(?P<bearer>[^\s"',;}]{6,})
    | (?P<known>\b(?:(?:sk|pk|rk|gsk|hf|xai|nvapi|key)[-_]|AIza)[\w*.…-]{6,})
    | (?P<masked>[\w-]*\*{3,}[\w*-]* | [\w-]*\d[\w-]*(?:\.{3}|…)[\w-]+)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WORD = re.compile(r"[^\s\"'`,;()]+")
_ELLIPSIS = re.compile(r"\*+|\.{3,}|…")
_SHOWN_PART = 6  # so many characters of a key in a row give it away


def without_secrets(text: str, key: str | None) -> str:
    """Replace keys by `[key]`: this one, also in part, and whatever looks like one; and drop passwords of addresses.

    Args:
        text: to be shown.
        key: the key in use; None where there is none.

    Example:
        >>> without_secrets("Incorrect API key provided: sk-abcd...wxyz.", None)
        'Incorrect API key provided: [key]'
    """
    text = re.sub(r"//[^/@\s]+@", "//", text)
    if key:
        text = _WORD.sub(lambda word: _MASK if _gives_away(word[0], key) else word[0], text.replace(key, _MASK))
    return _SECRETS.sub(_masked, text)


def _gives_away(word: str, key: str) -> bool:
    """Whether a word shows a part of a key: some characters in a row, or its ends around an ellipsis."""
    if any(key[at : at + _SHOWN_PART] in word for at in range(len(key) - _SHOWN_PART + 1)):
        return True
    first, *_, last = _ELLIPSIS.split(word.rstrip(".")) if _ELLIPSIS.search(word.rstrip(".")) else ("", "")
    return (len(first) > 1 and key.startswith(first)) or (len(last) > 1 and key.endswith(last))


def _masked(match: re.Match[str]) -> str:
    value = next(part for part in match.groups() if part is not None)
    return match[0].replace(value, _MASK)
