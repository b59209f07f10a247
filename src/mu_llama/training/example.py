"""One example to learn from, or what is said in its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mu_llama.errors import MuLlamaError
from mu_llama.text.prompts import Turn


class DataError(MuLlamaError, ValueError):
    """Training data that can't be used; may have several lines, one for each problem."""


@dataclass(frozen=True)
class Example:
    """A conversation about one track, or about nothing heard."""

    id: str
    """Names it in messages and records; unique in its data file."""
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
