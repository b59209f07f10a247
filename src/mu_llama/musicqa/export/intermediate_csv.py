"""The reference's intermediate tables: `;`, one track a line, open pairs as `Q:...<tab>A:...`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mu_llama.audio.file_names import path_on_disk
from mu_llama.files import write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.items import Item
from mu_llama.musicqa.reply import Pair, Reply
from mu_llama.musicqa.sources.corpus_files import SourceError, read_table
from mu_llama.text.prompts import FIXED_QUESTIONS

_OPEN = "OpenQA"
_OPEN_COLUMN = re.compile(rf"{_OPEN}\d+")


def write_csv(path: Path, items: Iterable[tuple[str, Item]], *, num_pairs: int) -> None:
    """Write named items as a table, in one step.

    Args:
        path: the file.
        items: audio names with their items.
        num_pairs: columns for open pairs; items with more lose the rest.
    """
    header = ["audio_name", *FIXED_QUESTIONS, *(f"{_OPEN}{number}" for number in range(1, num_pairs + 1))]

    def lines() -> Iterator[str]:
        yield _line(header)
        for name, item in items:
            pairs = [f"Q:{pair.question}\tA:{pair.answer}" for pair in item.reply.pairs[:num_pairs]]
            yield _line([name, *item.reply.fixed, *pairs, *[""] * (num_pairs - len(pairs))])

    write_whole(path, lines())


def read_csv(path: Path, *, audio_folder: Path | None = None) -> Iterator[tuple[str, Item]]:
    """Stream a table back: audio names with their items.

    Raises:
        SourceError: if it can't be read, lacks columns, or a pair isn't `Q:...<tab>A:...`.
    """
    seen: set[str] = set()
    listings: dict[Path, dict[str, str]] = {}
    for where, row in read_table(path, separator=";", columns=("audio_name", *FIXED_QUESTIONS)):
        pairs = []
        for column in sorted(
            filter(_OPEN_COLUMN.fullmatch, filter(None, row)), key=lambda name: int(name[len(_OPEN) :])
        ):
            cell = row[column]
            if cell:
                question, tab, answer = cell.partition("\t")
                if not tab or not question.startswith("Q:") or not answer.startswith("A:"):
                    raise SourceError(f"{where}: {column} is {cell[:40]!r}; expected Q:...<tab>A:...")
                pairs.append(Pair(question[2:], answer[2:]))
        name = row["audio_name"]
        empty = next((column for column in ("audio_name", *FIXED_QUESTIONS) if not row[column].strip()), None)
        if empty is not None or name in seen or None in row:
            reason = f"has nothing under {empty!r}" if empty else f"has {name} again, or too many cells"
            raise SourceError(f"{where}: {reason}; expected a track a line")
        seen.add(name)
        track = Track(
            id=f"musicqa/{name}",
            audio=None if audio_folder is None else path_on_disk(audio_folder / name, listings),
            source="musicqa",
        )
        yield name, Item(track, Reply(tuple(row[question] for question in FIXED_QUESTIONS), tuple(pairs)))


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=";", lineterminator="\n").writerow(cells)
    return buffer.getvalue()
