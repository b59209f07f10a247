"""Long lists of problems, cut to what a person reads."""

from __future__ import annotations

from collections.abc import Iterable

MOST_LISTED = 20
"""More problems of a kind are only counted."""


def listing(what: str, problems: Iterable[str], advice: str) -> list[str]:
    """Write a headline with the count and what to do, then the first problems, a line each; nothing for none.

    Example:
        >>> listing("bad rows", ["a.json, item 1: answer is missing"], "correct them")
        ['1 bad rows; correct them:', '  a.json, item 1: answer is missing']
    """
    lines = list(problems)
    if not lines:
        return []
    more = [f"  and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
    return [f"{len(lines)} {what}; {advice}:", *(f"  {line}" for line in lines[:MOST_LISTED]), *more]
