"""The bytes of an open file, copied once, to be read again when the file has moved on or is closed."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Iterable
from typing import IO, Any

MEMORY_BYTES = 16 * 2**20
"""Largest copy that is held in memory rather than in a temporary file."""


class SourceCopy:
    """A copy of a source; any number of readers, each with its own position. Can be pickled.

    Args:
        chunks: the bytes, in order.
        label: what to call the source in messages.
    """

    def __init__(self, chunks: Iterable[bytes], *, label: str) -> None:
        self.label = label
        self.size_bytes = 0
        """Length of the whole copy."""
        self._data: bytes | None = None
        self._lock = threading.Lock()
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - goes with the object
        for chunk in chunks:
            self.size_bytes += self._file.write(chunk)
        self._file.flush()
        if self.size_bytes <= MEMORY_BYTES:
            self._file.seek(0)
            self._data = self._file.read()
            self._file.close()

    def read_at(self, position: int, size: int) -> bytes:
        """Read at most `size` bytes from a position on; thread-safe."""
        if self._data is not None:
            return self._data[position : position + size]
        if hasattr(os, "pread"):  # a forked process shares the file's position
            return os.pread(self._file.fileno(), size, position)
        with self._lock:
            self._file.seek(position)
            return self._file.read(size)

    def open(self) -> IO[bytes]:
        """Return a new file object that stands at the beginning."""
        return io.BufferedReader(_Reader(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.open().read(), self.label)


class _Reader(io.RawIOBase):
    def __init__(self, copy: SourceCopy) -> None:
        self._copy, self._position = copy, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._copy.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._copy.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _restored(data: bytes, label: str) -> SourceCopy:
    return SourceCopy([data], label=label)
