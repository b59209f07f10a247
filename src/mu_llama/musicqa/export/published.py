"""The published layout: numbered wavs in audios/, and one JSON of questions for each part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama.audio.file_names import path_on_disk
from mu_llama.audio.read import write_wav
from mu_llama.errors import AudioError
from mu_llama.files import drop_cut_line, read_lines, to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.export.missing import missing_audio_error
from mu_llama.musicqa.export.staging import MADE_FROM_FILE, ExportError, staged
from mu_llama.musicqa.items import Item
from mu_llama.musicqa.reply import Pair, Reply
from mu_llama.musicqa.sources.corpus_files import SourceError
from mu_llama.text.prompts import FIXED_QUESTIONS

PARTS = ("Pretrain", "Finetune", "Eval")
"""`PretrainMusicQA.json` (captioned tracks), `FinetuneMusicQA.json` (tagged ones), `EvalMusicQA.json` (held out)."""

AUDIOS_FOLDER = "audios"
RESUMABLE = (AUDIOS_FOLDER, MADE_FROM_FILE)
"""What of a killed export the next one goes on with."""

IMPORTED = "musicqa"
"""Source of tracks that were read from published files."""


@dataclass(frozen=True)
class PublishedRow:
    """A question about a numbered wav."""

    audio_name: str
    """File in audios/."""
    question: str
    """From the human."""
    answer: str
    """From the model, exactly as stored."""


def read_published(path: Path) -> Iterator[PublishedRow]:
    """Stream the rows of a published JSON.

    Raises:
        SourceError: if it can't be read, or a row is none; names it.
    """
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


def write_published(path: Path, rows: Iterable[PublishedRow]) -> None:
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


def rows_of(item: Item, audio_name: str) -> Iterator[PublishedRow]:
    """The rows of an item as published: the four fixed questions, then the open ones."""
    for kind, question, answer in item.pairs:
        if kind in ("fixed", "open"):
            yield PublishedRow(audio_name, question, answer)


def items_of(rows: Iterable[PublishedRow], *, audio_folder: Path | None = None) -> Iterator[Item]:
    """Put the rows of each track together, in the order of their first ones.

    Raises:
        SourceError: if a track lacks one of the fixed questions.
    """
    by_name: dict[str, list[PublishedRow]] = {}
    for row in rows:
        by_name.setdefault(row.audio_name, []).append(row)
    listings: dict[Path, dict[str, str]] = {}
    for name, own in by_name.items():
        answers = {row.question: row.answer for row in reversed(own)}
        missing = [question for question in FIXED_QUESTIONS if question not in answers]
        if missing:
            raise SourceError(f"{name}: has no answer to {missing[0]!r}; expected all four fixed questions")
        fixed, open_rows = [], list(own)
        for question in FIXED_QUESTIONS:
            row = next(row for row in open_rows if row.question == question)
            fixed.append(row.answer)
            open_rows.remove(row)
        track = Track(
            id=f"{IMPORTED}/{name}",
            audio=None if audio_folder is None else path_on_disk(audio_folder / name, listings),
            source=IMPORTED,
            licence="MIT (as tagged by its publishers)",
        )
        yield Item(track, Reply(tuple(fixed), tuple(Pair(row.question, row.answer) for row in open_rows)))


def export_published(
    items: Callable[[], Iterable[Item]],
    out: Path,
    *,
    advance: Callable[[int], None] = lambda _: None,
    allow_missing_audio: bool = False,
) -> dict[str, int]:
    """Write audios/ and the three JSONs; wavs that were made from the same files before are kept.

    Captioned tracks of the training split go to Pretrain, tagged ones to Finetune, the others to Eval. Tracks that
    have no audio get their number and rows, but no wav.

    Args:
        items: opens the stream of items, in order.
        out: folder.
        advance: told of each track.
        allow_missing_audio: go on without the wavs of files that aren't there or can't be decoded.

    Returns:
        Rows of each part, and `unheard`: tracks whose audio couldn't be converted.

    Raises:
        ConfigError: see `staged`.
        ExportError: if audio is missing, or the folder can't be written; an export that was there stays.
    """
    with staged(out, to="published", resumable=RESUMABLE) as scratch:
        return write_published_folder(
            items, scratch, earlier=out, advance=advance, allow_missing_audio=allow_missing_audio
        )


def write_published_folder(
    items: Callable[[], Iterable[Item]],
    folder: Path,
    *,
    earlier: Path,
    advance: Callable[[int], None] = lambda _: None,
    allow_missing_audio: bool = False,
) -> dict[str, int]:
    """Write the files of `export_published` into a folder aside.

    Args:
        items: see there.
        folder: to be written.
        earlier: export to take wavs from that were made from the same files.
        advance: see there.
        allow_missing_audio: see there.

    Raises:
        ExportError: if audio is missing, or a wav can't be written.
    """
    counts = dict.fromkeys((*PARTS, "unheard"), 0)
    wavs = _Wavs(folder / AUDIOS_FOLDER, earlier / AUDIOS_FOLDER)
    missing: list[str] = []
    for number, item in enumerate(items()):
        problem = wavs.keep_or_write(audio_name(item, number), item.track)
        missing += [problem] if problem else []
        advance(1)
    wavs.finish()
    if missing and not allow_missing_audio:
        raise missing_audio_error(missing)
    counts["unheard"] = len(missing)
    for part in PARTS:

        def rows(part: str = part) -> Iterator[PublishedRow]:
            for number, item in enumerate(items()):
                if _part(item) == part:
                    for row in rows_of(item, audio_name(item, number)):
                        counts[part] += 1
                        yield row

        write_published(folder / f"{part}MusicQA.json", rows())
    return counts


class _Wavs:
    """The wavs of an export, with a list of what each was made from, so that none is taken for another's."""

    def __init__(self, folder: Path, earlier: Path) -> None:
        self._folder, self._earlier = folder, earlier
        self._list = folder.with_name(MADE_FROM_FILE)
        drop_cut_line(self._list)
        self._begun = {row["wav"]: row for row in read_lines(self._list)}
        self._known = {row["wav"]: row for row in read_lines(earlier.with_name(MADE_FROM_FILE))}
        self._rows: dict[str, dict[str, Any]] = {}

    def keep_or_write(self, name: str, track: Track) -> str | None:
        """See that a wav is there, unless there is nothing to make it from; says what is wrong."""
        if track.audio is None:
            return None
        target = self._folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ExportError(f"{track.id}: its audio is called {name!r}, which lies outside of the export; rename it")
        try:
            stat = track.audio.stat()
            row = {"wav": name, "track": track.id, "size_bytes": stat.st_size, "time_ns": stat.st_mtime_ns}
            if self._begun.get(name) == row and target.is_file():
                pass
            elif self._known.get(name) == row and (self._earlier / name).is_file():
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
        for name in self._begun.keys() - self._rows.keys():
            (self._folder / name).unlink(missing_ok=True)
        if self._rows or self._list.is_file():
            write_whole(self._list, map(to_line, self._rows.values()))


def audio_name(item: Item, number: int) -> str:
    """Name of an item's wav: its number in the data set, or the one it was imported with."""
    source, _, name = item.track.id.partition("/")
    return name if source == IMPORTED else f"{number:06}.wav"


def _part(item: Item) -> str:
    if item.split != "train":
        return "Eval"
    return "Pretrain" if item.track.caption else "Finetune"
