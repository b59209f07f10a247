"""Any folder of audio: labels from the files' own tags and from sidecars."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mu_llama.audio.file_names import Listings, composed, find_file
from mu_llama.audio.read import open_audio
from mu_llama.audio.source import display_name
from mu_llama.errors import AudioError
from mu_llama.files import LFS_ADVICE, is_lfs_pointer_file
from mu_llama.labels.grounding import terms_said
from mu_llama.labels.stated_facts import (
    MAX_BPM,
    MIN_BPM,
    parse_key,
    parse_label,
    parse_licence,
    parse_tempo,
    parse_voice,
)
from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import CATEGORIES
from mu_llama.musicqa.measuring import true_length
from mu_llama.musicqa.sources.corpus_files import (
    AUDIO_SUFFIXES,
    BadTrack,
    SourceError,
    absent_of,
    audio_root,
    by_category,
    find_column,
    read_table,
    refuse_label_pointer,
    without_empty,
)

_TABLES = ("labels.csv", "metadata.csv", "labels.tsv", "metadata.tsv", "labels.jsonl", "metadata.jsonl")
"""Sidecars for a whole folder, at its root; the first that is there is read."""
_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
_FILE_COLUMNS = ("file", "file_name", "filename", "audio", "path")
"""Which of a sidecar's columns names the audio file, relative to the root."""


def folder_tracks(root: Path) -> Iterator[Track | BadTrack]:
    """Stream every audio file below a folder, in the order of their names.

    What is known comes from, later ones winning: the file's own tags (genre, bpm, key, artist, title, licence), a table
    at the root (one of `_TABLES`), and `<name>.json` or `<name>.txt` (a caption) beside the file. Columns and keys:
    genre, instrument, mood, voice, tempo (lists separated by commas or semicolons), tags, caption, artist, title,
    licence, bpm, key, in small or capital letters. A key, tempo, licence or label that isn't one is left out and named
    in `Track.dropped`. Names match in whatever Unicode form they are written.

    Raises:
    Args:
        root: the folder, or the table at its root that is to be read, whatever its name.

    Raises:
        SourceError: if there is no such folder, or a table can't be read.
    """
    table = root if root.is_file() else next((root / name for name in _TABLES if (root / name).is_file()), None)
    if table == root and table.suffix.lower() not in _TABLE_SUFFIXES:
        raise SourceError(
            f"{root}: is no label file ({', '.join(_TABLE_SUFFIXES)}); expected one, or a folder of audio"
        )
    root = audio_root(root)
    if not root.is_dir():
        raise SourceError(f"{root}: there is no such folder; expected one with audio in it")
    rows, bad = _table(table)
    yield from bad
    files = {path.relative_to(root).as_posix(): path for path in _audio(root)}
    composed_rows = {composed(name): name for name in rows if name not in files}
    listings: dict[Path, dict[str, str]] = {}
    for name, path in files.items():
        # The row of the very name, else one of the same name in another Unicode form.
        row = rows.pop(name if name in rows else composed_rows.get(composed(name), name), {})
        try:
            yield _track(path, name, row, listings)
        except (AudioError, ValueError) as error:
            yield BadTrack(name, " ".join(str(error).split()).removeprefix(f"{display_name(path.name)}: "))
    for name in rows:
        yield BadTrack(name, "has labels, but there is no such audio file")


def _audio(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(folder, name)


def _table(table: Path | None) -> tuple[dict[str, dict[str, Any]], list[BadTrack]]:
    """Read the table of a folder, if it has one: audio file to its row."""
    rows: dict[str, dict[str, Any]] = {}
    bad: list[BadTrack] = []
    for where, row in _rows(table) if table is not None else ():
        plain = {str(name).strip().lower(): value for name, value in row.items() if value not in (None, "", [])}
        file = next((str(plain[column]).strip() for column in _FILE_COLUMNS if column in plain), None)
        if None in row:
            bad.append(BadTrack(where, "has too many cells; expected as many as columns: check its quotes"))
        elif file is None:
            bad.append(BadTrack(where, f"names no audio file; expected one under {', '.join(_FILE_COLUMNS)}"))
        elif Path(file).as_posix() in rows:
            bad.append(BadTrack(where, f"{file} came before; expected each once"))
        else:
            rows[Path(file).as_posix()] = plain
    return rows, bad


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    refuse_label_pointer(path)
    if path.suffix.lower() != ".jsonl":
        separator, column = find_column(path, _FILE_COLUMNS, what="the audio file")
        yield from read_table(path, separator=separator, columns=(column,))
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: can't be read in UTF-8 ({error}); check the file") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield f"{path.name}, line {number}", row if isinstance(row, dict) else {}


def _track(path: Path, name: str, row: Mapping[str, Any], listings: Listings) -> Track:
    with open_audio(path) as stream:
        duration_s, note = true_length(stream)
        stated = stream.tags
    labels = labels_from([_beside(path, listings), row, usable_tags(stated)])
    if duration_s is not None:
        labels["facts"] = {"duration_s": round(duration_s, 3), **labels["facts"]}
    if note is not None:
        labels["dropped"] += (note,)
    return Track(id=f"folder/{name}", audio=path, source="folder", **labels)


def _beside(path: Path, listings: Listings) -> dict[str, Any]:
    known: dict[str, Any] = {}
    text, plain = (find_file(path.with_suffix(suffix), listings) for suffix in (".txt", ".json"))
    for sidecar in filter(None, (text, plain)):
        if is_lfs_pointer_file(sidecar):
            raise ValueError(f"its sidecar {sidecar.name} {LFS_ADVICE}")
    try:
        if text is not None:
            known["caption"] = " ".join(text.read_text(encoding="utf-8-sig").split())
        if plain is not None:
            row = json.loads(plain.read_text(encoding="utf-8-sig"))
            if not isinstance(row, dict):
                raise ValueError("expected an object of names and values")
            known |= {str(name).strip().lower(): value for name, value in row.items() if value not in (None, "", [])}
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"its sidecar can't be read ({str(error)[:120]})") from error
    return known


_CATEGORY = {
    "genre": "genre", "genres": "genre", "style": "genre", "instrument": "instrument", "instruments": "instrument",
    "mood": "mood", "moods": "mood", "voice": "voice", "vocals": "voice", "tempo": "tempo",
}  # fmt: skip
_TAGS = ("tags", "keywords", "labels")
_CAPTION = ("caption", "description", "text")
_LICENCE = ("licence", "license", "copyright")
_BPM = ("tempo_bpm", "bpm", "tbpm", "tmpo")
_KEY = ("key", "initialkey", "initial_key", "tkey")
_ARTIST = ("artist", "album_artist", "author", "composer")
_VOICES: Mapping[str | bool, str] = {True: "voice", False: "no voice"}
_LIST = re.compile(r"\s*[;,|/]\s*")
_NUMBER_FIRST = re.compile(r"\W*\d")
_MAX_SHOWN = 60
_EXPECTED_BPM = f"expected {MIN_BPM:g} to {MAX_BPM:g} beats per minute"

_Known = Mapping[str, Any]
"""Names in small letters, and values."""
_Parsed = TypeVar("_Parsed")


def usable_tags(stated: Mapping[str, str]) -> dict[str, str]:
    """Of a file's own tags those that say something about the music; comments and encoders don't."""
    wanted = {"genre", "title", "mood", "keywords", *_ARTIST, *_BPM, *_KEY, *_LICENCE}
    return {name: value for name, value in stated.items() if name in wanted and value.strip()}


@dataclass
class _Read:
    """What was read so far."""

    tags: dict[str, list[str]] = field(default_factory=lambda: {category: [] for category in CATEGORIES})
    bpm: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def add(self, label: str, category: str) -> None:
        """Add a label; one that denies something goes to `other`."""
        denied = terms_said(label, is_genre=category == "genre")[1]
        self.tags["other" if denied else category].append(label)


def labels_from(layers: Sequence[_Known]) -> dict[str, Any]:
    """Parse what is known of a file.

    Args:
        layers: what was said by whom, the most trusted first. Of a key, tempo or licence the first that is one is
            taken; of the others the first that there is under each name.

    Returns:
        Fields of a `Track`: tags, absent, facts, caption, title, artist, licence and dropped.
    """
    known: dict[str, Any] = {}
    for layer in reversed(layers):
        known |= layer
    read = _read_tags(known)
    facts: dict[str, float | str] = {}
    tempi = [*layers, *({"bpm": bpm} for bpm in read.bpm)]
    bpm = _first_parsed(tempi, _BPM, parse_tempo, f"tempo_bpm: {{}} is no tempo; {_EXPECTED_BPM}", read.dropped)
    if bpm is not None:
        facts["tempo_bpm"] = bpm
    if (key := _first_parsed(layers, _KEY, parse_key, "key: {} is no key", read.dropped)) is not None:
        facts["key"] = key
    licence = _first_parsed(layers, _LICENCE, parse_licence, "licence: {} is no known licence", read.dropped)
    return {
        "tags": without_empty(read.tags),
        "absent": absent_of(read.tags),
        "facts": facts,
        "caption": _first(known, _CAPTION),
        "title": _first(known, ("title",)),
        "artist": _first(known, _ARTIST),
        "licence": licence,
        "dropped": tuple(dict.fromkeys(read.dropped)),
    }


def _read_tags(known: _Known) -> _Read:
    read = _Read()
    for column, category in _CATEGORY.items():
        for value in _values(known.get(column), is_tempo=category == "tempo"):
            if category == "tempo" and _NUMBER_FIRST.match(value):
                read.bpm.append(value)
                continue
            label = parse_voice(value) if category == "voice" else parse_label(value)
            if label is None:
                read.dropped.append(f"{category}: {_shown(value)} is no label")
            else:
                read.add(_VOICES.get(label) or str(label), category)
    loose = [value for column in _TAGS for value in _values(known.get(column))]
    for category, sorted_tags in by_category(loose).items():
        read.tags[category] += sorted_tags
    return read


def _first_parsed(
    layers: Sequence[_Known],
    names: Sequence[str],
    parse: Callable[[object], _Parsed | None],
    reason: str,
    dropped: list[str],
) -> _Parsed | None:
    """Give the first value that can be parsed; those before it, or all, are dropped."""
    for layer in layers:
        for name in names:
            value = layer.get(name)
            if isinstance(value, list | tuple) and len(value) == 1:
                value = value[0]
            if value is None or value in ("", []):
                continue
            if (parsed := parse(value)) is not None:
                return parsed
            dropped.append(reason.format(_shown(value)))
    return None


def _values(value: Any, *, is_tempo: bool = False) -> list[str]:
    """Split a list; a number with a decimal comma is one value."""
    if value is None:
        return []
    whole = isinstance(value, list | tuple)
    if is_tempo and not whole and parse_tempo(value) is not None:
        return [str(value)]
    parts = value if whole else _LIST.split(str(value))
    return [" ".join(str(part).split()) for part in parts if str(part).strip()]


def _first(known: _Known, names: tuple[str, ...]) -> str | None:
    value = next((known[name] for name in names if known.get(name)), None)
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return None if value is None else " ".join(str(value).split())


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
