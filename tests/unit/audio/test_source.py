"""A source may be anything that holds a file: it is read as often as needed and left where it stood."""

from __future__ import annotations

import bz2
import gzip
import io
import mmap
import os
import pickle
import socket
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mu_llama.audio.read import read_audio
from mu_llama.audio.source import open_bytes, repeatable
from mu_llama.audio.source_copy import SourceCopy
from mu_llama.audio.waveform import Waveform
from mu_llama.errors import AudioError, AudioNotFoundError


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(8000) / 9), 8000)
    return path


class ShortReads(io.RawIOBase):
    """A file that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 7) if size >= 0 else 7)


class OneWay:
    """A stream that knows nothing but `read`."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class PathObject:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@contextmanager
def zip_member(path: Path) -> Iterator[Any]:
    packed = path.with_suffix(".zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "song.wav")
    with zipfile.ZipFile(packed) as archive, archive.open("song.wav") as member:
        yield member


@contextmanager
def pipe(path: Path) -> Iterator[Any]:
    out, into = os.pipe()
    writer = threading.Thread(target=lambda: os.fdopen(into, "wb").write(path.read_bytes()))
    writer.start()
    with os.fdopen(out, "rb") as file:
        yield file
    writer.join()


@contextmanager
def connection(path: Path) -> Iterator[Any]:
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs:
            theirs.sendall(path.read_bytes())

    writer = threading.Thread(target=send)
    writer.start()
    with ours, ours.makefile("rb") as file:
        yield file
    writer.join()


@contextmanager
def mapped(path: Path) -> Iterator[Any]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        yield memory


@contextmanager
def given(value: Any) -> Iterator[Any]:
    yield value


def spooled(path: Path) -> Any:
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    file.write(path.read_bytes())
    file.seek(0)
    return file


def by_number(path: Path) -> Any:
    return open(os.open(path, os.O_RDONLY), "rb")  # noqa: PTH123


SOURCES: dict[str, Callable[[Path], Any]] = {
    "str": lambda path: given(str(path)),
    "path object": lambda path: given(PathObject(path)),
    "bytes": lambda path: given(path.read_bytes()),
    "bytearray": lambda path: given(bytearray(path.read_bytes())),
    "memoryview": lambda path: given(memoryview(path.read_bytes())),
    "BytesIO": lambda path: given(io.BytesIO(path.read_bytes())),
    "file": lambda path: path.open("rb"),
    "unbuffered file": lambda path: path.open("rb", buffering=0),
    "file by number": by_number,
    "spooled file": spooled,
    "zip member": zip_member,
    "gzip": lambda path: gzip.open(io.BytesIO(gzip.compress(path.read_bytes()))),  # noqa: SIM115
    "bz2": lambda path: bz2.open(io.BytesIO(bz2.compress(path.read_bytes()))),  # noqa: SIM115
    "mmap": mapped,
    "short reads": lambda path: given(ShortReads(path.read_bytes())),
    "pipe": pipe,
    "socket": connection,
    "one way": lambda path: given(OneWay(path.read_bytes())),
}
READ_ONCE = {"pipe", "socket", "one way"}


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_source_gives_the_samples_of_the_path(name: str, song: Path) -> None:
    expected = read_audio(song).samples
    with SOURCES[name](song) as source:
        np.testing.assert_array_equal(read_audio(source).samples, expected)
        if name not in READ_ONCE:
            np.testing.assert_array_equal(read_audio(source).samples, expected)
    with SOURCES[name](song) as source:
        kept = repeatable(source)
    for _ in range(2):  # the source is closed
        np.testing.assert_array_equal(read_audio(kept).samples, expected)
    np.testing.assert_array_equal(read_audio(pickle.loads(pickle.dumps(kept))).samples, expected)  # noqa: S301


@pytest.mark.parametrize("read", [read_audio, repeatable])
def test_an_open_file_is_left_where_it_stood(song: Path, read: Callable[[Any], Any]) -> None:
    data = song.read_bytes()
    for position in (0, 5):
        file = io.BytesIO(b"x" * position + data)
        file.seek(position)
        read(file)
        assert file.tell() == position
    with song.open("rb") as opened:
        read(opened)
        assert opened.tell() == 0


def test_a_file_that_was_just_written_is_read_from_its_beginning(song: Path, tmp_path: Path) -> None:
    written = io.BytesIO()
    written.write(song.read_bytes())
    size = written.tell()
    for source in (written, repeatable(written)):
        np.testing.assert_array_equal(read_audio(source).samples, read_audio(song).samples)
    assert written.tell() == size


def test_what_can_not_be_read_is_said_in_one_line(song: Path) -> None:
    closed = song.open("rb")
    closed.close()

    class Odd(OneWay):
        def read(self, size: int = -1) -> Any:
            return 5

    class Broken(OneWay):
        def read(self, size: int = -1) -> bytes:
            raise zipfile.BadZipFile("Bad CRC-32\nfor file")

    class NotWaiting(OneWay):
        def read(self, size: int = -1) -> None:  # type: ignore[override]
            return None

    cases: list[tuple[Any, str]] = [
        (closed, r"^song.wav: is closed; open it again$"),
        (io.StringIO("x"), r"^the given stream: can't be read \(it was opened as text\); open it in binary mode"),
        (Broken(b""), r"reading failed \(Bad CRC-32 for file\)"),
        (NotWaiting(b""), "doesn't wait for data"),
        (Odd(b""), r"its read\(\) gave int, not bytes"),
        (OneWay(b""), "is empty .*: open it again"),
        (io.BytesIO(), r"is empty \(0 bytes\)"),
        (3, "audio was given as int; expected a path"),
        (np.zeros(9), r"audio was given as ndarray; expected .*mu_llama.Waveform\(samples, rate_hz\)$"),
        ((np.zeros(9), 8000), r"given as tuple; expected .*mu_llama.Waveform\(samples, rate_hz\)$"),
    ]
    for source, problem in cases:
        for read in (open_bytes, repeatable):
            if read is open_bytes or not isinstance(source, (bytes, str)):
                with pytest.raises(AudioError, match=problem) as caught:
                    read(source)
                assert "\n" not in str(caught.value)
    with pytest.raises(AudioNotFoundError, match=r"^gone.wav: there is no such file"):
        open_bytes(PathObject(song.with_name("gone.wav")))


def test_a_large_copy_lies_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mu_llama.audio.source_copy.MEMORY_BYTES", 10)
    copy = SourceCopy([b"0123456789", b"abcdef"], label="x")
    first, second = copy.open(), copy.open()
    assert first.read(3) == b"012"
    assert second.read() == b"0123456789abcdef"
    second.seek(-4, io.SEEK_END)
    assert (first.read(), second.read()) == (b"3456789abcdef", b"cdef")
    assert pickle.loads(pickle.dumps(copy)).open().read() == b"0123456789abcdef"  # noqa: S301


def test_a_waveform_needs_no_copy() -> None:
    wave = Waveform(np.zeros(8, np.float32), 8000)
    assert repeatable(wave) is wave
