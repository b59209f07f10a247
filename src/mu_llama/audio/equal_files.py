"""Files of the same bytes, found by reading only those of equal size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


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
        size_bytes = _size_bytes(path)
        if size_bytes:
            by_size.setdefault(size_bytes, []).append(path)
    for group in by_size.values():
        if len(group) == 1:
            continue
        by_hash: dict[bytes, Path] = {}
        for path in group:
            digest = _hash(path)
            if digest is not None:
                first[path] = by_hash.setdefault(digest, path)
    return first


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _hash(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError):
        return None
