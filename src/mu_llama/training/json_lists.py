"""Data published as JSON lists: MusicQA and Alpaca."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mu_llama.text.prompts import Turn
from mu_llama.training.example import BadRow, DataError, Example
from mu_llama.training.reading_rows import RowError, audio_of, converted, mapping_of, reading, text_of


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
