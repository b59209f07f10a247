"""File names that people read as one, and files that hold the same bytes."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path

from mu_llama.audio.source import display_name
from mu_llama.files import sha256_of, size_bytes_of

Listings = MutableMapping[Path, dict[str, str]]
"""Folder -> composed name -> name on disk; shared between calls of `find_file`."""


def composed(name: str) -> str:
    r"""Give a name in Unicode's composed form (NFC), in which names of Macs (NFD) and others are equal.

    Example:
        >>> composed("cafe\u0301.wav") == "caf\u00e9.wav"
        True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def find_file(path: Path, listings: Listings | None = None) -> Path | None:
    """Find a file by its path, or by one that differs in Unicode's normal form alone; the exact one comes first.

    Args:
        path: as it is written somewhere.
        listings: of the folders looked into so far; filled here.

    Returns:
        The path on disk; None if no such file is there.
    """
    if path.is_file():
        return path
    if str(path).isascii():
        return None
    listings = {} if listings is None else listings
    place = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 :]:
        if not (place / part).exists():
            part = _listed(place, listings).get(composed(part), part)
        place /= part
    return place if place.is_file() else None


def path_on_disk(path: Path, listings: Listings | None = None) -> Path:
    """Give a path as `find_file` finds it, or as it came where there is no such file."""
    return find_file(path, listings) or path


def _listed(folder: Path, listings: Listings) -> dict[str, str]:
    if folder not in listings:
        try:
            names = sorted(os.listdir(folder), reverse=True)  # noqa: PTH208 - names are wanted, not paths
        except OSError:
            names = []
        listings[folder] = {composed(name): name for name in names}
    return listings[folder]


def distinct_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Name files by as few of their last parts as make them distinct, in printable letters.

    Example:
        >>> list(distinct_names([Path("a/x/1.flac"), Path("b/x/1.flac"), Path("b/x/2.flac")]).values())
        ['a/x/1.flac', 'b/x/1.flac', '2.flac']
    """
    unnamed = dict.fromkeys(paths)
    names = dict.fromkeys(unnamed, "")
    depth = 1
    while unnamed:
        shown = {
            path: "/".join(map(display_name, path.parts[-depth:])).replace("//", "/") or str(path) for path in unnamed
        }
        times = Counter(shown.values())
        done = [path for path in unnamed if times[shown[path]] == 1 or depth >= len(path.parts)]
        for path in done:
            names[path] = shown[path]
            del unnamed[path]
        depth += 1
    return names


def equal_files(paths: Iterable[Path]) -> dict[Path, Path]:
    """Find which files hold the same bytes.

    Args:
        paths: of files; one that can't be read is equal to none.

    Returns:
        Each distinct path with the first of its equals, itself where it has none.
    """
    first = {path: path for path in paths}
    by_size: dict[int, list[Path]] = {}
    for path in first:
        size_bytes = size_bytes_of(path)
        if size_bytes:
            by_size.setdefault(size_bytes, []).append(path)
    for group in by_size.values():
        if len(group) == 1:
            continue
        by_hash: dict[str, Path] = {}
        for path in group:
            with suppress(OSError, ValueError):
                first[path] = by_hash.setdefault(sha256_of(path), path)
    return first
