"""The formats of data files, and how to tell them apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from mu_llama.training.example import BadRow, DataError, Example
from mu_llama.training.json_lists import read_alpaca, read_musicqa
from mu_llama.training.own_formats import read_jsonl, read_parquet
from mu_llama.training.reading_rows import reading

FileFormat = Literal["musicqa", "alpaca", "jsonl", "parquet"]

_HEAD_BYTES = 2**16
_EMPTY = re.compile(r"\s*(?:\[\s*\]\s*)?")
EMPTY = (
    "is empty; expected at least one example: leave the file out, or, if it is a part of a small data set, give that "
    "part a larger share when it is built (`mu-llama musicqa build` with --validation or --test)"
)
"""What is said of a file without rows."""
# A key of a JSON list's rows; inside a text its closing quote would have a backslash in front.
_ROW_KEY = re.compile(r'"(conversation|instruction)"\s*:')


class Reader(Protocol):
    """Streams the rows of a data file."""

    def __call__(self, path: Path, *, audio_folder: Path) -> Iterator[Example | BadRow]:
        """Stream examples, and bad rows in the place of those that can't be used."""
        ...


READERS: Mapping[FileFormat, Reader] = MappingProxyType(
    {"musicqa": read_musicqa, "alpaca": read_alpaca, "jsonl": read_jsonl, "parquet": read_parquet}
)
"""Format -> its reader."""


def detect_format(path: Path) -> FileFormat:
    """Tell the format of a file from how it begins, whatever its name.

    Raises:
        DataError: if it can't be read, is empty or begins like none of the formats.
    """
    with reading(path), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if _EMPTY.fullmatch(text):
        raise DataError(f"{path}: {EMPTY}")
    key = _ROW_KEY.search(text)
    if text.startswith("[") and key:
        return "musicqa" if key[1] == "conversation" else "alpaca"
    if text.startswith("{"):
        return "jsonl"
    raise DataError(f"{path}: begins like none of {', '.join(READERS)}; check the file, or name its format")
