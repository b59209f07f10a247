"""One example to learn from, and how rows that can't be used are reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mu_llama.errors import MuLlamaError
from mu_llama.text.prompts import Turn


class DataError(MuLlamaError, ValueError):
    """Training data that can't be used; may have several lines, one for each problem."""


@dataclass(frozen=True)
class Example:
    """A conversation about one track, or text only."""

    id: str
    """Identifies it in messages and records; unique in its data file."""
    turns: tuple[Turn, ...]
    """Questions, each with its answer; at least one."""
    audio: Path | None = None
    """Audio file, relative to the working directory or absolute; None is text only."""
    group: str | None = None
    """What kind of example it is, where the data says so."""


@dataclass(frozen=True)
class BadRow:
    """A row of a data file that can't be used."""

    path: Path
    """The data file."""
    place: str
    """Which row, e.g. `line 3`."""
    reason: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return f"{self.path}, {self.place}: {self.reason}"


MAX_LISTED = 20
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
    more = [f"  and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return [f"{len(lines)} {what}; {advice}:", *(f"  {line}" for line in lines[:MAX_LISTED]), *more]
