"""Readers of data files: one function and one line of `FORMATS` for each format."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mu_llama.text.prompts import Turn
from mu_llama.training.example import (
    BadRow,
    DataError,
    Example,
    RowError,
    audio_of,
    converted,
    mapping_of,
    reading,
    text_of,
)


def read_musicqa(path: Path, *, audio_folder: Path) -> Iterator[Example | BadRow]:
    """Read a published MusicQA file: a JSON list of `audio_name` (left out: text only) and `conversation`.

    Args:
        path: the JSON file; it is in memory as a whole.
        audio_folder: where `audio_name` starts.

    Yields:
        Examples with ids `<file stem>:<number of the item, from 1>`, or bad rows.

    Raises:
        DataError: if the file is no JSON list.
    """

    def convert(raw: object, number: int) -> Example:
        row = mapping_of(raw)
        turns = row.get("conversation")
        if not isinstance(turns, list) or not turns or len(turns) % 2:
            raise RowError("conversation is no list of questions and answers in turn")
        said = []
        for index, part in enumerate(turns):
            speaker = ("human", "gpt")[index % 2]
            if not isinstance(part, dict) or part.get("from") != speaker:
                raise RowError(f"part {index + 1} of the conversation is not from {speaker!r}")
            said.append(text_of(part, "value"))
        pairs = zip(said[::2], said[1::2], strict=True)
        return Example(
            id=f"{path.stem}:{number}",
            turns=tuple(Turn(question, answer) for question, answer in pairs),
            audio=audio_of(row, "audio_name", audio_folder),
        )

    return converted(path, "item", _json_list(path), convert)


def read_alpaca(path: Path, *, audio_folder: Path) -> Iterator[Example | BadRow]:
    """Read Alpaca's JSON list of `instruction`, `input` (may be empty or left out) and `output`, without audio.

    The question is the instruction, with the input after an empty line if there is one: the templates here have no
    slot for it.

    Args:
        path: the JSON file; it is in memory as a whole.
        audio_folder: not used.

    Yields:
        As `read_musicqa`.

    Raises:
        DataError: if the file is no JSON list.
    """

    def convert(raw: object, number: int) -> Example:
        row = mapping_of(raw)
        more = row.get("input")
        if more is not None and not isinstance(more, str):
            raise RowError("input is no text")
        question = text_of(row, "instruction") + (f"\n\n{more}" if more and more.strip() else "")
        return Example(id=f"{path.stem}:{number}", turns=(Turn(question, text_of(row, "output")),))

    return converted(path, "item", _json_list(path), convert)


def _json_list(path: Path) -> Iterator[tuple[int, Any]]:
    with reading(path):
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds a JSON {type(rows).__name__}; expected a list of rows")
    yield from enumerate(rows, start=1)


def read_jsonl(path: Path, *, audio_folder: Path) -> Iterator[Example | BadRow]:
    """Stream JSON lines of `id`, `audio` (a path or null), `turns` of `question` and `answer`, and `group`.

    `question` and `answer` may stand in the row itself instead of `turns`; `id` and `group` may be left out, and
    other keys are passed over. `audio_absolute` may name a second place, for where there is no file at `audio`.

    Args:
        path: the file; empty lines are passed over.
        audio_folder: where relative audio paths start.

    Yields:
        Examples with their own ids or `<file stem>:<line>`, or bad rows.

    Raises:
        DataError: if the file can't be read.
    """

    def rows() -> Iterator[tuple[int, bytes]]:
        with reading(path), path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line

    def convert(line: bytes, number: int) -> Example:
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise RowError(f"is not JSON in UTF-8 ({error})") from error
        return _native_row(row, number, path, audio_folder, is_file)

    is_file = functools.cache(Path.is_file)  # a track has many rows
    return converted(path, "line", rows(), convert)


def read_parquet(path: Path, *, audio_folder: Path) -> Iterator[Example | BadRow]:
    """Stream a Parquet file with the columns of `read_jsonl`.

    Args:
        path: the file.
        audio_folder: where relative audio paths start.

    Yields:
        Examples with their own ids or `<file stem>:<row, from 1>`, or bad rows.

    Raises:
        DataError: if pyarrow is missing or the file can't be read.
    """
    rows = enumerate(parquet_rows(path), start=1)
    is_file = functools.cache(Path.is_file)
    return converted(path, "row", rows, lambda row, number: _native_row(row, number, path, audio_folder, is_file))


def _native_row(raw: object, number: int, path: Path, audio_folder: Path, is_file: Callable[[Path], bool]) -> Example:
    """Read a row of the project's format: JSON lines or Parquet."""
    row = mapping_of(raw)
    turns = row.get("turns")
    if turns is None:
        turns = [row]
    elif row.get("question") is not None or row.get("answer") is not None:
        raise RowError("has turns and a question or answer beside them; expected one of the two")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise RowError("turns is no list of mappings of question and answer")
    if "audio" not in row:
        raise RowError("audio is missing; give null where there is none")
    name = row.get("id")
    group = row.get("group")
    if not isinstance(name, str | int | None) or not isinstance(group, str | None):
        raise RowError("id or group is no text")
    return Example(
        id=f"{path.stem}:{number}" if name is None else str(name),
        turns=tuple(Turn(text_of(turn, "question"), text_of(turn, "answer")) for turn in turns),
        audio=_audio(row, audio_folder, is_file),
        group=group,
    )


def _audio(row: Mapping[str, Any], folder: Path, is_file: Callable[[Path], bool]) -> Path | None:
    audio = audio_of(row, "audio", folder)
    if audio is None or row.get("audio_absolute") is None or is_file(audio):
        return audio
    elsewhere = audio_of(row, "audio_absolute", folder)
    return elsewhere if elsewhere is not None and is_file(elsewhere) else audio


_ROWS_AT_A_TIME = 1024


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Parquet file as mappings from column to value.

    Args:
        path: the file; some thousand rows of it are in memory.

    Raises:
        DataError: if pyarrow isn't installed, or the file can't be read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow; run: pip install pyarrow") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: can't be read as Parquet ({' '.join(str(error).split())}); copy it again") from error


class Reader(Protocol):
    """Streams the rows of a data file."""

    def __call__(self, path: Path, *, audio_folder: Path) -> Iterator[Example | BadRow]:
        """Stream examples, and bad rows in the place of those that can't be used."""
        ...


@dataclass(frozen=True)
class DataFormat:
    """How the files of a format are read and recognised."""

    read: Reader
    """Streams a file."""
    start: str | None = None
    """How its files begin, byte order mark and white space left out; None if they are lists with `list_key`."""
    list_key: str | None = None
    """Key in each row of a JSON list, which no other format has; None if `start` tells."""
    audio_subfolder: str | None = None
    """Folder beside the file in which its audio names start, if it exists."""


FORMATS: dict[str, DataFormat] = {
    "musicqa": DataFormat(read_musicqa, list_key="conversation", audio_subfolder="audios"),
    "alpaca": DataFormat(read_alpaca, list_key="instruction"),
    "jsonl": DataFormat(read_jsonl, start="{"),
    "parquet": DataFormat(read_parquet, start="PAR1"),
}
"""The formats of data files by their names in settings; another one needs a reader and a line here."""
