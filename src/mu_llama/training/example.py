"""One example to learn from, how it is made of a row of data, and how rows that can't be used are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


class RowError(ValueError):
    """What is wrong with one row."""


def converted(
    path: Path,
    unit: str,
    rows: Iterator[tuple[int, Any]],
    convert: Callable[[Any, int], Example],
) -> Iterator[Example | BadRow]:
    """Convert numbered rows, turning the failure of one into a bad row.

    Args:
        path: the file, for messages.
        unit: what a row is called in it, e.g. `line`.
        rows: numbers and what `convert` takes.
        convert: makes an example of a row and its number; a RowError says why it can't.
    """
    for number, row in rows:
        try:
            yield convert(row, number)
        except RowError as error:
            yield BadRow(path, f"{unit} {number}", str(error))


def mapping_of(row: object) -> Mapping[str, Any]:
    """Give a row that is a mapping.

    Raises:
        RowError: if it isn't.
    """
    if not isinstance(row, dict):
        raise RowError("is no mapping of names to values")
    return row


def text_of(row: Mapping[str, Any], key: str) -> str:
    """Give the text under a key, exactly as written.

    Raises:
        RowError: if it is missing, empty or no text.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{key} is {'missing' if value is None else 'empty or no text'}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise RowError(f"{key} holds half of a surrogate pair, which is no letter")
    return value


def audio_of(row: Mapping[str, Any], key: str, folder: Path) -> Path | None:
    """Give the audio file under a key, None where there is none.

    Raises:
        RowError: if it is no path.
    """
    name = row.get(key)
    if name is None:
        return None
    if not isinstance(name, str) or not name or "\0" in name:
        raise RowError(f"{key} is no path (leave it out where there is no audio)")
    return folder / name


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the failures of reading a data file into errors that name it.

    Raises:
        DataError: for an operating system's error, another encoding than UTF-8, and what isn't JSON.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error}); check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error}); save it as UTF-8, or name its format") from error
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); correct it or copy it again") from error
