"""The published layout (numbered wavs in audios/, one JSON of questions for each part) and its intermediate CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama.audio.file_names import path_on_disk
from mu_llama.audio.read import write_wav
from mu_llama.errors import AudioError
from mu_llama.files import drop_cut_line, read_lines, to_line, without_surrogates, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.export.staging import ExportError, ExportFormat, Items, missing_audio_error
from mu_llama.musicqa.items import DataSetItem
from mu_llama.musicqa.reply import Pair, Reply
from mu_llama.musicqa.sources.corpus_files import SourceError, read_table, refuse_label_pointer
from mu_llama.text.prompts import FIXED_QUESTIONS

_PARTS = ("Pretrain", "Finetune", "Eval")
"""`PretrainMusicQA.json` (captioned tracks), `FinetuneMusicQA.json` (tagged ones), `EvalMusicQA.json` (held out)."""

_AUDIOS_FOLDER = "audios"
_MADE_FROM_FILE = ".made_from.jsonl"
_IMPORTED = "musicqa"  # source of tracks that were read from published files


@dataclass(frozen=True)
class PublishedRow:
    """A question about a numbered wav."""

    audio_name: str
    """File in audios/."""
    question: str
    """From the human."""
    answer: str
    """From the model, exactly as stored."""


def read_published_rows(path: Path) -> Iterator[PublishedRow]:
    """Stream the rows of a published JSON.

    Raises:
        SourceError: if it can't be read, or a row is none; names it.
    """
    refuse_label_pointer(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: can't be read as JSON ({error}); check the file") from error
    if not isinstance(rows, list):
        raise SourceError(f"{path}: holds no list; expected the rows of MusicQA")
    for number, row in enumerate(rows, start=1):
        try:
            human, model = row["conversation"]
            yield PublishedRow(str(row["audio_name"]), str(human["value"]), str(model["value"]))
        except (TypeError, KeyError, ValueError) as error:
            raise SourceError(
                f"{path}, row {number}: is no MusicQA row; expected audio_name and a conversation of two"
            ) from error


def write_published_rows(path: Path, rows: Iterable[PublishedRow]) -> None:
    """Write rows as the published files have them, byte for byte, in one step."""

    def text() -> Iterator[str]:
        # The parts of json.dump(rows, indent=2), one row at a time.
        before = "[\n"
        for row in rows:
            shown = json.dumps(_as_published(row), indent=2)
            yield before + "  " + shown.replace("\n", "\n  ")
            before = ",\n"
        yield "\n]" if before == ",\n" else "[]"

    write_whole(path, text())


def _as_published(row: PublishedRow) -> dict[str, Any]:
    conversation = [{"from": "human", "value": row.question}, {"from": "gpt", "value": row.answer}]
    return {"audio_name": row.audio_name, "conversation": conversation}


def published_rows(item: DataSetItem, audio_name: str) -> Iterator[PublishedRow]:
    """The rows of an item as published: the four fixed questions, then the open ones."""
    for kind, question, answer in item.pairs:
        if kind in ("fixed", "open"):
            yield PublishedRow(audio_name, question, answer)


def items_of_rows(rows: Iterable[PublishedRow], *, audio_folder: Path | None = None) -> Iterator[DataSetItem]:
    """Put the rows of each track together, in the order of their first ones.

    Raises:
        SourceError: if a track lacks one of the fixed questions.
    """
    by_name: dict[str, list[PublishedRow]] = {}
    for row in rows:
        by_name.setdefault(row.audio_name, []).append(row)
    listings: dict[Path, dict[str, str]] = {}
    for name, track_rows in by_name.items():
        answers = {row.question: row.answer for row in reversed(track_rows)}
        missing = [question for question in FIXED_QUESTIONS if question not in answers]
        if missing:
            raise SourceError(f"{name}: has no answer to {missing[0]!r}; expected all four fixed questions")
        fixed, open_rows = [], list(track_rows)
        for question in FIXED_QUESTIONS:
            row = next(row for row in open_rows if row.question == question)
            fixed.append(row.answer)
            open_rows.remove(row)
        track = Track(
            id=f"{_IMPORTED}/{name}",
            audio=None if audio_folder is None else path_on_disk(audio_folder / name, listings),
            source=_IMPORTED,
            licence="MIT (as tagged by its publishers)",
        )
        yield DataSetItem(track, Reply(tuple(fixed), tuple(Pair(row.question, row.answer) for row in open_rows)))


def write_published_folder(items: Items, folder: Path, *, out: Path, allow_missing_audio: bool) -> dict[str, int]:
    """Write audios/ and the three JSONs; wavs that an earlier export made from the same files are taken over.

    Captioned tracks of the training split go to Pretrain, tagged ones to Finetune, the others to Eval. Tracks that
    never had audio get their number and rows, but no wav; those whose audio is missing or can't be decoded are left
    out, with their numbers. See `WriteExport`.

    Returns:
        Rows of each part, and `unheard`: tracks whose audio couldn't be converted.

    Raises:
        ExportError: if audio is missing, or a wav can't be written.
    """
    counts = dict.fromkeys((*_PARTS, "unheard"), 0)
    wavs = _Wavs(folder / _AUDIOS_FOLDER, out / _AUDIOS_FOLDER)
    missing: dict[int, str] = {}
    for number, item in enumerate(items()):
        problem = wavs.write(wav_name(item, number), item.track)
        if problem:
            missing[number] = problem
    wavs.finish()
    if missing and not allow_missing_audio:
        raise missing_audio_error([*missing.values()], advice="replace the files")
    counts["unheard"] = len(missing)
    for part in _PARTS:

        def rows(part: str = part) -> Iterator[PublishedRow]:
            for number, item in enumerate(items()):
                if number not in missing and _part(item) == part:
                    for row in published_rows(item, wav_name(item, number)):
                        counts[part] += 1
                        yield row

        write_published_rows(folder / f"{part}MusicQA.json", rows())
    return counts


class _Wavs:
    """The wavs of an export, with a list of what each was made from, so that none is taken for another's."""

    def __init__(self, folder: Path, earlier: Path) -> None:
        self._folder, self._earlier = folder, earlier
        self._list = folder.with_name(_MADE_FROM_FILE)
        drop_cut_line(self._list)
        self._resumed = {row["wav"]: row for row in read_lines(self._list)}
        self._earlier_rows = {row["wav"]: row for row in read_lines(earlier.with_name(_MADE_FROM_FILE))}
        self._rows: dict[str, dict[str, Any]] = {}

    def write(self, name: str, track: Track) -> str | None:
        """Write a track's wav unless it is there from before; gives what is wrong with its audio, or None."""
        if track.audio is None:
            return None
        target = self._folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ExportError(f"{track.id}: its audio is called {name!r}, which lies outside of the export; rename it")
        try:
            stat = track.audio.stat()
            row = {"wav": name, "track": track.id, "size_bytes": stat.st_size, "time_ns": stat.st_mtime_ns}
            if self._resumed.get(name) == row and target.is_file():
                pass
            elif self._earlier_rows.get(name) == row and (self._earlier / name).is_file():
                self._take_over(name)
            else:
                write_wav(track.audio, target)
        except (AudioError, FileNotFoundError) as error:
            if str(error).startswith(f"{target}:"):  # the wav, not what it is made from: a full disk
                raise ExportError(" ".join(str(error).split())) from error
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            return f"{track.id}: {track.audio}: {' '.join(str(reason).split())}"
        self._rows[name] = row
        with self._list.open("a", encoding="utf-8") as file:
            file.write(to_line(row))
        return None

    def _take_over(self, name: str) -> None:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(self._earlier / name)
        except OSError:  # not on this file system
            shutil.copy2(self._earlier / name, target)

    def finish(self) -> None:
        """Remove wavs that a killed export left and this one doesn't have, and list those that it has."""
        for name in self._resumed.keys() - self._rows.keys():
            (self._folder / name).unlink(missing_ok=True)
        if self._rows or self._list.is_file():
            write_whole(self._list, map(to_line, self._rows.values()))


def wav_name(item: DataSetItem, number: int) -> str:
    """Name of an item's wav: its number in the data set, or the one it was imported with."""
    source, _, name = item.track.id.partition("/")
    return name if source == _IMPORTED else f"{number:06}.wav"


def _part(item: DataSetItem) -> str:
    if item.split != "train":
        return "Eval"
    return "Pretrain" if item.track.caption else "Finetune"


_CSV_FILE = "musicqa.csv"
_OPEN = "OpenQA"
_OPEN_COLUMN = re.compile(rf"{_OPEN}\d+")


def write_csv(path: Path, items: Iterable[tuple[str, DataSetItem]], *, num_pairs: int) -> None:
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


def read_csv(path: Path, *, audio_folder: Path | None = None) -> Iterator[tuple[str, DataSetItem]]:
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
            id=f"{_IMPORTED}/{name}",
            audio=None if audio_folder is None else path_on_disk(audio_folder / name, listings),
            source=_IMPORTED,
        )
        yield name, DataSetItem(track, Reply(tuple(row[question] for question in FIXED_QUESTIONS), tuple(pairs)))


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=";", lineterminator="\n").writerow(map(without_surrogates, cells))
    return buffer.getvalue()


def _write_table(items: Items, folder: Path, *, out: Path, allow_missing_audio: bool) -> dict[str, int]:
    """Write the intermediate CSV, which names wavs by number and has none; see `WriteExport`."""
    num_pairs = max((len(item.reply.pairs) for item in items()), default=0)
    named = ((wav_name(item, number), item) for number, item in enumerate(items()))
    write_csv(folder / _CSV_FILE, named, num_pairs=num_pairs)
    return {"tracks": sum(1 for _ in items())}


def _earlier_wavs(out: Path) -> list[str]:
    wavs = [f"{_AUDIOS_FOLDER}/{row.get('wav')}" for row in read_lines(out / _MADE_FROM_FILE)]
    return [*wavs, _MADE_FROM_FILE] if wavs else []


PUBLISHED_FORMAT = ExportFormat(
    write_published_folder,
    files=tuple(f"{part}MusicQA.json" for part in _PARTS),
    more_files=_earlier_wavs,
    resumable=(_AUDIOS_FOLDER, _MADE_FROM_FILE),
    counts_missing_audio=True,
)
CSV_FORMAT = ExportFormat(_write_table, files=(_CSV_FILE,), has_audio=False)
