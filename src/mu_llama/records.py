"""Records that cross stages, and JSON lines: read, append, write whole."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu_llama.errors import MuLlamaError


class RecordError(MuLlamaError, ValueError):
    """A file of records that is damaged in the middle."""


_LABELS = ("tags", "absent", "guesses", "doubts")


@dataclass(frozen=True)
class Track:
    """A piece of audio and what is known about it.

    Example:
        >>> track = Track("folder/a.ogg", audio=Path("a.ogg"), tags={"instrument": ("piano",)})
        >>> Track.from_dict(track.to_dict()) == track
        True
    """

    id: str
    """Unique in its corpus."""
    audio: Path | None = None
    """Audio file; None where it is missing."""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels by category: genre, instrument, voice, mood, tempo, other; `dialogues.knowledge` lists more."""
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is known not to be there, by category."""
    guesses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a tagger believes, surest first, by category: said with a "probably"."""
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a tagger believes not to be there, by category."""
    caption: str | None = None
    """What somebody wrote about it."""
    facts: Mapping[str, float | str] = field(default_factory=dict)
    """Measured or stated values by name: tempo_bpm, key, duration_s."""
    title: str | None = None
    """As its makers call it."""
    artist: str | None = None
    """Who made it; tracks of one artist stay on one side of a split."""
    licence: str | None = None
    """Of the audio and its labels, as far as known."""
    shared_group: str | None = None
    """Group of tracks whose audio is the same under several artists or ids; None where it has none but its own."""
    source: str = ""
    """Name of the corpus."""
    dropped: tuple[str, ...] = ()
    """What its source left out of its labels or noted on its audio, one sentence each: `key: 'o' is no key`."""

    @property
    def group(self) -> str:
        """What stays together in a split: those of the same audio, else the artist, else the track."""
        return self.shared_group or self.artist or self.id

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON; what is unknown is left out."""
        plain = {
            "id": self.id,
            "audio": None if self.audio is None else str(self.audio),
            **{name: _lists(getattr(self, name)) for name in _LABELS},
            "caption": self.caption,
            "facts": dict(self.facts),
            "title": self.title,
            "artist": self.artist,
            "licence": self.licence,
            "shared_group": self.shared_group,
            "source": self.source,
            "dropped": list(self.dropped),
        }
        return {name: value for name, value in plain.items() if value or name == "id"}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Track:
        """Undo `to_dict`."""
        audio = plain.get("audio")
        return cls(
            id=plain["id"],
            audio=None if audio is None else Path(audio),
            **{name: _tuples(plain.get(name, {})) for name in _LABELS},
            caption=plain.get("caption"),
            facts=dict(plain.get("facts", {})),
            title=plain.get("title"),
            artist=plain.get("artist"),
            licence=plain.get("licence"),
            shared_group=plain.get("shared_group"),
            source=plain.get("source", ""),
            dropped=tuple(plain.get("dropped", ())),
        )


def _lists(labels: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {category: list(names) for category, names in labels.items() if names}


def _tuples(labels: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {category: tuple(names) for category, names in labels.items()}


def to_line(row: Mapping[str, Any]) -> str:
    """Write a row as a line of JSON, with its newline."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, as file names of other encodings have
        line = json.dumps(row) + "\n"
    return line


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the rows of a JSON lines file; one that a kill cut off at the end is passed over, and so is no file."""
    for _, row in read_lines_at(path):
        yield row


def read_lines_at(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream rows with the byte where each begins."""
    if not path.is_file():
        return
    offset_bytes = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n") and line.strip():
                yield offset_bytes, _parsed(line, f"{path}, line {number}")
            offset_bytes += len(line)


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: is damaged ({error}); restore the file, or begin anew") from error
    if not isinstance(row, dict):
        raise RecordError(f"{where}: is no record; restore the file, or begin anew")
    return row


def drop_cut_line(path: Path) -> None:
    """Take away what a kill left of a line at the end of a file, so that the next line begins on its own."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end and not _ends_line(file, end):
            end = max(0, end - 1)
        if end != size:
            file.truncate(end)


def _ends_line(file: Any, end: int) -> bool:
    file.seek(end - 1)
    return bool(file.read(1) == b"\n")


def write_whole(path: Path, parts: Iterable[str] | Iterable[bytes]) -> None:
    """Write a file in one step: it appears whole or stays as it was.

    Raises:
        OSError: if the disk is full or the folder can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with scratch.open("wb") as file:
            for part in parts:
                file.write(part.encode("utf-8") if isinstance(part, str) else part)
        os.replace(scratch, path)  # noqa: PTH105 - the name says that it's one step
    finally:
        with suppress(OSError):  # gone, when all went well
            scratch.unlink()
