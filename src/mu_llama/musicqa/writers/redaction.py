"""Takes keys and the like out of texts that a server or a library wrote, before they are shown or kept."""

from __future__ import annotations

import re

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
