"""Turns what a caller names as audio into one seekable reader of bytes, or one clear error."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from mu_llama.audio.source_copy import SourceCopy
from mu_llama.audio.waveform import Waveform
from mu_llama.errors import AudioError, AudioNotFoundError

AudioSource = str | os.PathLike[str] | bytes | BinaryIO | SourceCopy
"""A path, the bytes of a file, or an open binary file.

An open file is read from its current position, or from its beginning where that is its end; the position is restored.
"""

CHUNK_BYTES = 2**20
"""How much of an open file is copied at a time."""


class ByteReader:
    """The only file object that a decoder ever sees.

    Decoders call it from C, where an exception can't travel: a failing read counts as the end of the data
    and is kept in `failure`. The name given to decoders is fixed, so that no format is guessed from it.
    """

    name = "audio"

    def __init__(self, file: IO[bytes], *, label: str, close_file: bool) -> None:
        self.label = label
        """What to call the source in messages: its file name, never its folder."""
        self.failure: Exception | None = None
        """The first error of the underlying file, if any."""
        self._file = file
        self._close_file = close_file
        self._start_position = file.tell()
        file.seek(0, io.SEEK_END)
        end = file.tell()
        self._origin = self._start_position if self._start_position < end else 0
        self.size_bytes = end - self._origin
        """Length in bytes, from where reading starts."""
        file.seek(self._origin)

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, less only at the end and after a failure."""
        size = self.size_bytes if size < 0 else size
        parts: list[bytes] = []
        try:
            while size > 0 and (part := _checked(self._file.read(size))):
                parts.append(part[:size])
                size -= len(part)
        except Exception as error:  # a caller's object may raise anything, and C code can't pass it on
            self.failure = self.failure or error
            return b""
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; one outside of the data becomes its nearest end, and on a broken file the start."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.size_bytes}.get(whence, 0)
        try:
            self._file.seek(self._origin + min(max(0, base + offset), self.size_bytes))
            return self._file.tell() - self._origin
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
        """Close the file if this reader opened it; put any other back to where it stood."""
        if self._close_file:
            self._file.close()
            return
        with contextlib.suppress(Exception):  # its owner may have closed it
            self._file.seek(self._start_position)


def open_bytes(source: AudioSource) -> ByteReader:
    """Open a source for reading from any position.

    Args:
        source: see `AudioSource`. A string is always a path: an address such as `https://...` is a file that
            doesn't exist. Of paths, only regular files are opened: a pipe or device could block for ever. An open
            file that can't seek is copied first.

    Returns:
        A reader to be closed by the caller.

    Raises:
        AudioNotFoundError: if the path doesn't exist.
        AudioError: if it can't be opened, isn't a regular file, or is empty.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        reader = ByteReader(io.BytesIO(source), label=source_label(source), close_file=True)
    elif isinstance(source, SourceCopy):
        reader = ByteReader(source.open(), label=source.label, close_file=True)
    elif _is_file(source):
        reader = _open_file_object(source)
    elif isinstance(source, (str, os.PathLike)):
        reader = _open_path(os.fsdecode(source))
    else:
        raise _no_source(source)
    if reader.size_bytes == 0:
        reader.close()
        raise AudioError(f"{reader.label}: is empty (0 bytes); copy or download it again")
    return reader


def repeatable(source: object) -> AudioSource | Waveform:
    """Return a source that can be read again at any time, whatever becomes of an open file: its bytes are copied.

    Args:
        source: see `AudioSource`; paths, bytes and waveforms are returned as they are.

    Raises:
        AudioError: if it is an open file that can't be read, or no audio source at all.
    """
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (bytes, SourceCopy, Waveform)):
        return source
    if _is_file(source):
        return _copied(source)
    if isinstance(source, (str, os.PathLike)):
        return source
    raise _no_source(source)


def source_label(source: object) -> str:
    """Say what to call a source in messages: the name of its file, where it has one."""
    if isinstance(source, SourceCopy):
        return source.label
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the given bytes"
    if isinstance(source, Waveform):
        return "the given waveform"
    name = getattr(source, "name", None) if _is_file(source) else os.fsdecode(source)  # type: ignore[arg-type]
    return display_name(name) if isinstance(name, str) and name else "the given stream"


def display_name(name: str) -> str:
    """Return a file name as one printable line: without folders, control characters or broken Unicode."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name
    return "".join(char if char.isprintable() else "\ufffd" for char in last)[:200]


def _open_path(path: str) -> ByteReader:
    label = display_name(path)
    if path == "":
        raise AudioError("the audio path is empty; give the path of an audio file")
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{label}: is a folder; give one audio file")
        if not stat.S_ISREG(mode):
            raise AudioError(f"{label}: is a pipe or device, not a regular file; save its audio to a file first")
        return ByteReader(Path(path).open("rb"), label=label, close_file=True)
    except FileNotFoundError as error:
        advice = "download it and give the file's path" if "://" in path else "check the path"
        raise AudioNotFoundError(f"{label}: there is no such file; {advice}") from error
    except PermissionError as error:
        raise AudioError(f"{label}: may not be read (permission denied); change its permissions") from error
    except OSError as error:
        raise AudioError(f"{label}: can't be opened ({error.strerror or error}); check the path") from error
    except AudioError:
        raise
    except ValueError as error:  # a NUL inside the path
        raise AudioError(f"{label}: is not a usable path ({error}); check the path") from error


def _is_file(source: object) -> bool:
    return callable(getattr(source, "read", None))


def _open_file_object(file: Any) -> ByteReader:
    try:
        if _position(file) is not None:
            _checked(file.read(0))
            return ByteReader(file, label=source_label(file), close_file=False)
    except Exception as error:  # any caller's object may stand here
        raise _unreadable(file, error) from error
    return ByteReader(_copied(file).open(), label=source_label(file), close_file=True)


def _copied(file: Any) -> SourceCopy:
    try:
        stood = _position(file)
        try:
            copy = SourceCopy(_chunks(file), label=source_label(file))
            if stood and not copy.size_bytes:
                file.seek(0)
                copy = SourceCopy(_chunks(file), label=source_label(file))
        finally:
            if stood is not None:
                file.seek(stood)
    except Exception as error:  # as above
        raise _unreadable(file, error) from error
    if not copy.size_bytes:
        advice = "it was read to its end: open it again" if stood is None else "copy or download it again"
        raise AudioError(f"{copy.label}: is empty (0 bytes); {advice}")
    return copy


def _unreadable(file: Any, error: Exception) -> AudioError:
    if getattr(file, "closed", False) is True:
        return AudioError(f"{source_label(file)}: is closed; open it again")
    if isinstance(error, TypeError):
        return AudioError(f"{source_label(file)}: can't be read ({error}); open it in binary mode ('rb')")
    reason = " ".join(str(error).split()) or type(error).__name__
    return AudioError(f"{source_label(file)}: reading failed ({reason}); check the disk or stream")


def _no_source(source: object) -> AudioError:
    return AudioError(
        f"audio was given as {type(source).__name__}; expected a path, bytes, an open binary file or "
        "mu_llama.Waveform(samples, rate_hz)"
    )


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := _checked(file.read(CHUNK_BYTES)):
        yield chunk


def _position(file: Any) -> int | None:
    """Where an open file stands; None if it can't be put back there."""
    seekable = getattr(file, "seekable", None)
    if not callable(getattr(file, "seek", None)) or (callable(seekable) and not seekable()):
        return None
    try:
        return int(file.tell())
    except (OSError, AttributeError):
        return None


def _checked(data: Any) -> bytes:
    """Refuse what `read` of a binary file doesn't give."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    if data is None:
        raise OSError("it doesn't wait for data; read it to its end and give the bytes")
    if isinstance(data, str):
        raise TypeError("it was opened as text")
    raise TypeError(f"its read() gave {type(data).__name__}, not bytes")
