"""Turns what a caller names as audio into one seekable reader of bytes, or one clear error."""

from __future__ import annotations

import io
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, BinaryIO

from mu_llama.errors import AudioError, AudioNotFoundError

AudioSource = str | Path | bytes | BinaryIO
"""A path, the bytes of a file, or an open binary file, which is read from where it stands."""

SPOOL_BYTES = 16 * 2**20
"""How much of a source that can't seek is kept in memory before it goes to a temporary file."""


class ByteReader:
    """The only file object that a decoder ever sees.

    Decoders call it from C, where an exception can't travel: a failing read counts as the end of the data
    and is kept in `failure`. The name given to decoders is fixed, so that no format is guessed from it.
    """

    name = "audio"

    def __init__(self, file: IO[bytes], *, label: str, owned: bool) -> None:
        self.label = label
        """What to call the source in messages: its file name, never its folder."""
        self.failure: Exception | None = None
        """The first error of the underlying file, if any."""
        self._file = file
        self._owned = owned
        self._origin = file.tell()
        self.size_bytes = max(0, file.seek(0, io.SEEK_END) - self._origin)
        """Length in bytes, from where the source stood when it was given."""
        file.seek(self._origin)

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; empty at the end and after a failure."""
        try:
            data = bytes(self._file.read(size) or b"")
        except Exception as error:  # any caller's object may stand here, and C code is above us
            self.failure = self.failure or error
            return b""
        return data if size < 0 else data[:size]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; a move to before the start or on a broken file goes to the start."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.size_bytes}.get(whence, 0)
        try:
            return self._file.seek(self._origin + max(0, base + offset)) - self._origin
        except Exception as error:  # as in read
            self.failure = self.failure or error
            return 0

    def tell(self) -> int:
        """Return the position, counted from the start of the source."""
        try:
            return self._file.tell() - self._origin
        except Exception as error:  # as in read
            self.failure = self.failure or error
            return 0

    def close(self) -> None:
        """Close the file if this reader opened it."""
        if self._owned:
            self._file.close()


def open_bytes(source: AudioSource) -> ByteReader:
    """Open a source for reading from any position.

    Args:
        source: path, bytes or binary file. A string is always a path: an address such as `https://...` is a
            file that doesn't exist. Only regular files are opened: a pipe or device could block for ever.
            A binary file that can't seek is copied to a temporary file first.

    Returns:
        A reader to be closed by the caller.

    Raises:
        AudioNotFoundError: if the path doesn't exist.
        AudioError: if it can't be opened, isn't a regular file, or is empty.
    """
    if isinstance(source, (str, Path)):
        reader = _open_path(source)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        reader = ByteReader(io.BytesIO(source), label="the given bytes", owned=True)
    elif callable(getattr(source, "read", None)):
        reader = _open_file_object(source)
    else:
        raise AudioError(f"audio was given as {type(source).__name__}; expected a path, bytes or an open binary file")
    if reader.size_bytes == 0:
        reader.close()
        raise AudioError(f"{reader.label}: is empty (0 bytes); copy or download it again")
    return reader


def display_name(name: str) -> str:
    """Return a file name as one printable line: without folders, control characters or broken Unicode."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name
    return "".join(char if char.isprintable() else "\ufffd" for char in last)[:200]


def _open_path(path: str | Path) -> ByteReader:
    label = display_name(str(path))
    if str(path) == "":
        raise AudioError("the audio path is empty; give the path of an audio file")
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{label}: is a folder; give one audio file")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{label}: is a pipe or device, not a regular file; save its audio to a file first")
        return ByteReader(Path(path).open("rb"), label=label, owned=True)
    except FileNotFoundError as error:
        advice = "download it and give the file's path" if "://" in str(path) else "check the path"
        raise AudioNotFoundError(f"{label}: there is no such file; {advice}") from error
    except PermissionError as error:
        raise AudioError(f"{label}: may not be read (permission denied); change its permissions") from error
    except OSError as error:
        raise AudioError(f"{label}: can't be opened ({error.strerror or error}); check the path") from error
    except AudioError:
        raise
    except ValueError as error:  # a NUL inside the path
        raise AudioError(f"{label}: is not a usable path ({error}); check the path") from error


def _open_file_object(file: BinaryIO) -> ByteReader:
    name = getattr(file, "name", None)
    label = display_name(name) if isinstance(name, str) and name else "the given stream"
    try:
        if not isinstance(file.read(0), (bytes, bytearray, type(None))):
            raise AudioError(f"{label}: was opened as text; open it in binary mode ('rb')")
        seekable = getattr(file, "seekable", None)
        if callable(getattr(file, "seek", None)) and (seekable is None or seekable()):
            return ByteReader(file, label=label, owned=False)
        spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - the reader closes it
        shutil.copyfileobj(file, spool)
        spool.seek(0)
        return ByteReader(spool, label=label, owned=True)
    except AudioError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise AudioError(f"{label}: can't be read ({error}); open it again in binary mode") from error
