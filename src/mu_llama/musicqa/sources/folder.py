"""Any folder of audio: labels from the files' own tags and from sidecars."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mu_llama.audio.file_names import Listings, composed, find_file
from mu_llama.audio.read import open_audio
from mu_llama.audio.source import display_name
from mu_llama.errors import AudioError
from mu_llama.labels.track import Track
from mu_llama.musicqa.sources.corpus_files import AUDIO_SUFFIXES, BadTrack, SourceError, read_table
from mu_llama.musicqa.sources.folder_labels import labels_from, usable_tags
from mu_llama.musicqa.sources.whole_audio import true_length

TABLES = ("labels.csv", "metadata.csv", "labels.tsv", "metadata.tsv", "labels.jsonl", "metadata.jsonl")
"""Sidecars for a whole folder, at its root; the first that is there is read."""
FILE_COLUMNS = ("file", "file_name", "filename", "audio", "path")
"""Which of a sidecar's columns names the audio file, relative to the root."""


def tracks(root: Path) -> Iterator[Track | BadTrack]:
    """Stream every audio file below a folder, in the order of their names.

    What is known comes from, later ones winning: the file's own tags (genre, bpm, key, artist, title, licence), a table
    at the root (one of `TABLES`), and `<name>.json` or `<name>.txt` (a caption) beside the file. Columns and keys:
    genre, instrument, mood, voice, tempo (lists separated by commas or semicolons), tags, caption, artist, title,
    licence, bpm, key, in small or capital letters. A key, tempo, licence or label that isn't one is left out and named
    in `Track.dropped`. Names match in whatever Unicode form they are written.

    Raises:
        SourceError: if there is no such folder, or a table can't be read.
    """
    if not root.is_dir():
        raise SourceError(f"{root}: there is no such folder; expected one with audio in it")
    rows, bad = _table(root)
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


def _table(root: Path) -> tuple[dict[str, dict[str, Any]], list[BadTrack]]:
    """Read the table of a folder: audio file to its row."""
    found = next((root / name for name in TABLES if (root / name).is_file()), None)
    rows: dict[str, dict[str, Any]] = {}
    bad: list[BadTrack] = []
    for where, row in _rows(found) if found is not None else ():
        plain = {str(name).strip().lower(): value for name, value in row.items() if value not in (None, "", [])}
        file = next((str(plain[column]).strip() for column in FILE_COLUMNS if column in plain), None)
        if None in row:
            bad.append(BadTrack(where, "has too many cells; expected as many as columns: check its quotes"))
        elif file is None:
            bad.append(BadTrack(where, f"names no audio file; expected one under {', '.join(FILE_COLUMNS)}"))
        elif Path(file).as_posix() in rows:
            bad.append(BadTrack(where, f"{file} came before; expected each once"))
        else:
            rows[Path(file).as_posix()] = plain
    return rows, bad


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix != ".jsonl":
        separator = "\t" if path.suffix == ".tsv" else ","
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            header = {name.strip() for name in re.split(r"[,;|\t\"]+", file.readline().lower())}
        column = next((name for name in FILE_COLUMNS if name in header), FILE_COLUMNS[0])
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
