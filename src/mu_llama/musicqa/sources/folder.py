"""Any folder of audio: labels from the files' own tags and from sidecars."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mu_llama.audio.read import open_audio
from mu_llama.errors import AudioError
from mu_llama.musicqa.sources.categories import by_category
from mu_llama.musicqa.sources.finding import AUDIO_SUFFIXES, BadTrack, SourceError, read_table, without_empty
from mu_llama.musicqa.vocabulary import CATEGORIES
from mu_llama.records import Track

TABLES = ("labels.csv", "metadata.csv", "labels.tsv", "metadata.tsv", "labels.jsonl", "metadata.jsonl")
"""Sidecars for a whole folder, at its root; the first that is there is read."""
FILE_COLUMNS = ("file", "file_name", "filename", "audio", "path")
"""Which of a sidecar's columns names the audio file, relative to the root."""
_CATEGORY = {
    "genre": "genre", "genres": "genre", "style": "genre", "instrument": "instrument", "instruments": "instrument",
    "mood": "mood", "moods": "mood", "voice": "voice", "vocals": "voice", "tempo": "tempo",
}  # fmt: skip
_TAGS = ("tags", "keywords", "labels")
_CAPTION = ("caption", "description", "text")
_LICENCE = ("licence", "license", "copyright")
_BPM = ("tempo_bpm", "bpm", "tbpm", "tmpo")
_KEY = ("key", "initialkey", "initial_key", "tkey")
_LIST = re.compile(r"\s*[;,|/]\s*")


def tracks(root: Path) -> Iterator[Track | BadTrack]:
    """Stream every audio file below a folder, in the order of their names.

    What is known comes from, later ones winning: the file's own tags (genre, bpm, key, artist, title, licence), a table
    at the root (one of `TABLES`), and `<name>.json` or `<name>.txt` (a caption) beside the file. Columns and keys:
    genre, instrument, mood, voice, tempo (lists separated by commas or semicolons), tags, caption, artist, title,
    licence, bpm, key.

    Raises:
        SourceError: if there is no such folder, or a table can't be read.
    """
    if not root.is_dir():
        raise SourceError(f"{root}: there is no such folder; expected one with audio in it")
    rows, bad = _table(root)
    yield from bad
    for path in _audio(root):
        name = path.relative_to(root).as_posix()
        try:
            yield _track(path, name, rows.pop(name, {}))
        except (AudioError, ValueError) as error:
            yield BadTrack(name, " ".join(str(error).split()))
    for name in rows:
        yield BadTrack(name, "has labels, but there is no such audio file")


def _audio(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(folder, name)


def _table(root: Path) -> tuple[dict[str, dict[str, Any]], list[BadTrack]]:
    """Read the table of a folder: audio file to its row."""
    found = next((root / name for name in TABLES if (root / name).is_file()), None)
    rows: dict[str, dict[str, Any]] = {}
    bad: list[BadTrack] = []
    for where, row in _rows(found) if found is not None else ():
        plain = {str(name).strip().lower(): value for name, value in row.items() if value not in (None, "", [])}
        file = next((str(plain[column]) for column in FILE_COLUMNS if column in plain), None)
        if file is None:
            bad.append(BadTrack(where, f"names no audio file; expected one under {', '.join(FILE_COLUMNS)}"))
        elif Path(file).as_posix() in rows:
            bad.append(BadTrack(where, f"{file} came before; expected each once"))
        else:
            rows[Path(file).as_posix()] = plain
    return rows, bad


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix != ".jsonl":
        separator = "\t" if path.suffix == ".tsv" else ","
        first = path.open(encoding="utf-8-sig", errors="replace").readline().strip().lower()
        column = next((name for name in FILE_COLUMNS if name in re.split(r"[,;|\t\"]+", first)), FILE_COLUMNS[0])
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


def _track(path: Path, name: str, row: Mapping[str, Any]) -> Track:
    with open_audio(path) as stream:
        stated, duration_s = stream.tags, stream.declared_s
    known: dict[str, Any] = {**_usable(stated), **row, **_beside(path)}
    tags: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    facts: dict[str, float | str] = {} if duration_s is None else {"duration_s": round(duration_s, 3)}
    for column, category in _CATEGORY.items():
        values = _values(known.get(column))
        if category == "tempo" and values and _number(values[0]) is not None:
            known.setdefault("bpm", values[0])
        else:
            tags[category] += values
    loose = [value for column in _TAGS for value in _values(known.get(column))]
    for category, sorted_tags in by_category(loose).items():
        tags[category] += sorted_tags
    bpm = _number(_first(known, _BPM))
    if bpm:
        facts["tempo_bpm"] = bpm
    if (key := _first(known, _KEY)) is not None:
        facts["key"] = key
    return Track(
        id=f"folder/{name}",
        audio=path,
        tags=without_empty(tags),
        caption=_first(known, _CAPTION),
        facts=facts,
        title=_first(known, ("title",)),
        artist=_first(known, ("artist", "album_artist", "author", "composer")),
        licence=_first(known, _LICENCE),
        source="folder",
    )


def _usable(stated: Mapping[str, str]) -> dict[str, str]:
    """Of a file's own tags those that say something about the music; comments and encoders don't."""
    wanted = {"genre", "artist", "album_artist", "composer", "title", *_BPM, *_KEY, *_LICENCE, "mood", "keywords"}
    return {name: value for name, value in stated.items() if name in wanted and value.strip()}


def _beside(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = {}
    text, plain = path.with_suffix(".txt"), path.with_suffix(".json")
    try:
        if text.is_file():
            known["caption"] = " ".join(text.read_text(encoding="utf-8-sig").split())
        if plain.is_file():
            row = json.loads(plain.read_text(encoding="utf-8-sig"))
            if not isinstance(row, dict):
                raise ValueError("expected an object of names and values")
            known |= {str(name).lower(): value for name, value in row.items() if value not in (None, "", [])}
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"its sidecar can't be read ({str(error)[:120]})") from error
    return known


def _values(value: Any) -> list[str]:
    if value is None:
        return []
    parts = value if isinstance(value, list | tuple) else _LIST.split(str(value))
    return [" ".join(str(part).split()) for part in parts if str(part).strip()]


def _first(known: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((" ".join(str(known[name]).split()) for name in names if known.get(name)), None)


def _number(text: object) -> float | None:
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if 0 < number < 1000 else None
