"""Which optional parameters a chat server takes, learned from what it refuses."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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

    Many requests may be in flight when the first is refused: each tells what it had sent, so that none fails of what
    another has already learned.

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
            own = next((limit for limit in _LIMITS if limit in sent), None)
            if own is not None and own == self._limit:
                following = _LIMITS.index(own) + 1
                self._limit = _LIMITS[following] if following < len(_LIMITS) else None
                _report(own, f"{self._limit} is sent instead" if self._limit else "replies may have any length")
            return own is not None
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
