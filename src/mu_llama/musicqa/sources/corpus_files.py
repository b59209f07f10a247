"""What sources share: finding label files and audio, reading tables, sorting tags into categories."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mu_llama.audio.file_names import composed
from mu_llama.errors import MuLlamaError
from mu_llama.files import LFS_ADVICE, is_lfs_pointer_file
from mu_llama.labels.grounding import negates, terms_said
from mu_llama.labels.vocabulary import CATEGORIES, Term, terms_of_tag

AUDIO_SUFFIXES = frozenset(
    (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".aiff", ".aif", ".wma", ".webm", ".mka",
     ".mkv", ".mov", ".w64", ".caf", ".au")
)  # fmt: skip
"""File names that are taken for audio; whether they are is seen when they are opened."""
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_MAX_SHOWN = 8


class SourceError(MuLlamaError, ValueError):
    """A corpus that can't be read at all: no label file, wrong columns."""


@dataclass(frozen=True)
class BadTrack:
    """A row that can't be used."""

    where: str
    """File and row, or id."""
    reason: str
    """What is wrong."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class AudioFiles:
    """The audio files below a folder, found by name whatever their suffix and folder."""

    def __init__(self, root: Path) -> None:
        self._by_stem: dict[str, Path] = {}
        self._by_composed_stem: dict[str, Path] = {}
        for folder, _, names in sorted(os.walk(root)):
            for name in sorted(names):
                if Path(name).suffix.lower() in AUDIO_SUFFIXES:
                    self._by_stem.setdefault(Path(name).stem, Path(folder, name))
                    self._by_composed_stem.setdefault(composed(Path(name).stem), Path(folder, name))

    def find(self, *stems: str) -> Path | None:
        """Give the file of one of these names (without suffix), the first that is there, in any Unicode form."""
        for stem in stems:
            path = self._by_stem.get(stem) or self._by_composed_stem.get(composed(stem))
            if path is not None:
                return path
        return None

    def __iter__(self) -> Iterator[Path]:
        return iter(sorted(self._by_stem.values()))


def find_table(root: Path, names: Sequence[str], *, what: str) -> Path:
    """Find a label file: the root itself, or a file of one of these names in it or one folder below.

    Raises:
        SourceError: if there is none.
    """
    if root.is_file():
        return root
    if not root.is_dir():
        raise SourceError(f"{root}: there is no such folder; expected that of {what}, or its label file")
    places = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    for name in names:
        for place in places:
            if (place / name).is_file():
                return place / name
    raise SourceError(f"{root}: holds no {' or '.join(names)}; expected the label file of {what} there")


def refuse_label_pointer(path: Path) -> None:
    """Refuse the pointer that a clone without Git LFS leaves in the place of a label file.

    Raises:
        SourceError: if the file is one.
    """
    if is_lfs_pointer_file(path):
        raise SourceError(f"{path}: {LFS_ADVICE}")


def audio_root(root: Path) -> Path:
    """The folder whose audio belongs to a root, which may be the label file itself."""
    return root.parent if root.is_file() else root


def read_table(path: Path, *, separator: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Stream the rows of a table with a header, each with its place; a row with too few cells comes without them.

    Columns match in small or capital letters, with spaces around them or not, and come as they are asked for.

    Raises:
        SourceError: if it is a Git LFS pointer, can't be read, is separated by something else, or lacks columns.
    """
    refuse_label_pointer(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            has_spaces = f"{separator} " in file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=separator, restval="", skipinitialspace=has_spaces)
            reader.fieldnames = named_columns(reader.fieldnames or [], columns)
            check_columns(path, reader.fieldnames, columns, separator=separator)
            for row in reader:
                yield f"{path.name}, line {reader.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: can't be read as a table in UTF-8 ({error}); check the file") from error


def find_column(path: Path, names: Sequence[str], *, what: str) -> tuple[str, str]:
    """Find a column in the header line of a table, whatever separates its columns.

    Args:
        path: the table; its suffix says which separator is tried first.
        names: of the column, in small letters; the first that is there is taken.
        what: the column names, for the error.

    Returns:
        The separator and the name.

    Raises:
        SourceError: if there is none, or the line can't be read.
    """
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
        headers = {
            separator: [
                name.strip() for name in next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
            ]
            for separator in (usual, *_SEPARATORS)
        }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: can't be read as a table in UTF-8 ({error}); check the file") from error
    for separator, columns in headers.items():
        spelled = {name.casefold() for name in columns}
        column = next((name for name in names if name in spelled), None)
        if column is not None:
            return separator, column
    columns = max(headers.values(), key=len)
    shown = ", ".join(columns[:_MAX_SHOWN]) + (", ..." if len(columns) > _MAX_SHOWN else "")
    raise SourceError(
        f"{path}: has no column that names {what}; expected one of {', '.join(names)}; it has: " + (shown or "none")
    )


def named_columns(columns: Sequence[str], needed: Sequence[str]) -> list[str]:
    """Spell a table's columns as they are asked for, where they differ in capital letters and spaces around alone.

    Example:
        >>> named_columns(["File", " BPM ", "Mood"], ["file", "bpm"])
        ['file', 'bpm', 'Mood']
    """
    spelled = {name.casefold(): name for name in needed if name not in columns}
    return [spelled.pop(name.strip().casefold(), name) for name in columns]


def check_columns(path: Path, columns: Sequence[str], needed: Sequence[str], *, separator: str) -> None:
    """Refuse a table that lacks columns, saying whether its separator is another one.

    Raises:
        SourceError: if it does.
    """
    missing = [name for name in needed if name not in columns]
    if not missing:
        return
    header = separator.join(columns)
    others = [
        other
        for other in _SEPARATORS
        if other != separator and set(needed) <= set(named_columns(header.split(other), needed))
    ]
    if others:
        raise SourceError(
            f"{path}: is separated by {_SEPARATORS[others[0]]}; expected {_SEPARATORS[separator]}: save it again"
        )
    shown = ", ".join(columns[:_MAX_SHOWN]) + (", ..." if len(columns) > _MAX_SHOWN else "")
    raise SourceError(f"{path}: lacks the columns {', '.join(missing)}; it has: {shown or 'none'}")


def without_empty(tags: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Tags by category, each once, without empty categories."""
    return {category: tuple(dict.fromkeys(values)) for category, values in tags.items() if values}


def by_category(tags: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Sort tags into categories; a phrase goes with the first category it names, a denial to `other`.

    Example:
        >>> by_category(["violin", "slow tempo", "no drums", "weird"])
        {'instrument': ('violin',), 'tempo': ('slow tempo',), 'other': ('no drums', 'weird')}
    """
    sorted_tags: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    for tag in tags:
        clean = " ".join(tag.split())
        if clean:
            sorted_tags[_category(clean)].append(clean)
    return without_empty(sorted_tags)


def absent_of(tags: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Give what tags deny, by category, in the vocabulary's words; what another tag names isn't among it.

    Example:
        >>> absent_of({"instrument": ["piano"], "other": ["no drums", "no vocals", "no piano"]})
        {'instrument': ('drums',), 'voice': ('voice',)}
    """
    named: set[str] = set()
    denied: list[Term] = []
    for category, values in tags.items():
        for tag in values:
            present, absent = terms_said(tag, is_genre=category == "genre")
            named.update(name for term in present for name in (term.name, *term.broader))
            denied += absent
    by_name: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    for term in denied:
        if term.name not in named:
            by_name[term.category].append(term.name)
    return without_empty(by_name)


@lru_cache(maxsize=65536)
def _category(tag: str) -> str:
    if negates(tag):
        return "other"
    categories = {term.category for term in terms_of_tag(tag)}
    return next(
        (category for category in ("voice", "instrument", "genre", "tempo", "mood") if category in categories), "other"
    )
