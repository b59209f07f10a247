"""Files: JSON lines, hashes and sizes, Git LFS pointers, text that UTF-8 can encode, writing in one step."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mu_llama.errors import MuLlamaError

_CHUNK_BYTES = 1 << 22
LFS_ADVICE = "is a Git LFS pointer, not the file itself; run `git lfs pull`"
"""What to say of a pointer, after the file's name."""

_POINTER_HEAD_BYTES = 100
_POINTER_STARTS = (b"version https://git-lfs", b"version https://hawser")


class RecordError(MuLlamaError, ValueError):
    """A file of records that is damaged in the middle."""


def to_line(row: Mapping[str, Any]) -> str:
    """Write a row as a line of JSON, with its newline."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, as in file names of other encodings
        line = json.dumps(row) + "\n"
    return line


def without_surrogates(text: str) -> str:
    r"""Return a text that UTF-8 can encode: each lone surrogate, as JSON and file names may hold, becomes `?`.

    Example:
        >>> without_surrogates("caf\udce9")
        'caf?'
    """
    return text.encode("utf-8", "replace").decode()


def size_bytes_of(path: Path) -> int:
    """Return the size of a file, 0 where it can't be read."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def sha256_of(path: Path, *, advance: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of a file's bytes in hex.

    Args:
        path: the file.
        advance: called with the number of bytes read since the last call.

    Raises:
        OSError: if the file can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def is_lfs_pointer(head: bytes) -> bool:
    r"""Say whether a file's first bytes are those of a Git LFS pointer.

    Args:
        head: the first 100 bytes or more of the file.

    Example:
        >>> is_lfs_pointer(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a...")
        True
        >>> is_lfs_pointer(b"RIFF$...WAVEfmt ")
        False
    """
    return head.startswith(_POINTER_STARTS)


def is_lfs_pointer_file(path: Path) -> bool:
    """Say whether a file is a pointer; one that can't be read is left to its reader."""
    try:
        with path.open("rb") as file:
            return is_lfs_pointer(file.read(_POINTER_HEAD_BYTES))
    except OSError:
        return False


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the rows of a JSON lines file; an incomplete last line is skipped, and a missing file has no rows."""
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
        raise RecordError(f"{where}: is damaged ({error}); restore the file, or start again") from error
    if not isinstance(row, dict):
        raise RecordError(f"{where}: is no record; restore the file, or start again")
    return row


def drop_cut_line(path: Path) -> None:
    """Remove an incomplete last line, left by a kill, so that the next line starts on its own."""
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
        with suppress(OSError):  # renamed, unless writing failed
            scratch.unlink()
