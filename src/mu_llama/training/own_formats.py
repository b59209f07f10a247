"""Data in our own rows, as JSON lines or Parquet."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mu_llama.text.prompts import Turn
from mu_llama.training.example import BadRow, Example
from mu_llama.training.parquet import parquet_rows
from mu_llama.training.reading_rows import RowError, audio_of, converted, mapping_of, reading, text_of


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
        return _own_row(row, number, path, audio_folder, is_file)

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
    return converted(path, "row", rows, lambda row, number: _own_row(row, number, path, audio_folder, is_file))


def _own_row(raw: object, number: int, path: Path, audio_folder: Path, is_file: Callable[[Path], bool]) -> Example:
    """Read a row of our own format."""
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
