"""Decodes what FFmpeg refuses and libsndfile can read, such as Ogg Vorbis with unusual headers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soundfile

from mu_llama.audio.decoders.frames import BLOCK_SAMPLES, MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ
from mu_llama.audio.source import ByteReader
from mu_llama.audio.waveform import Samples
from mu_llama.errors import AudioError

FOREIGN_ERRORS = (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OSError, MemoryError)
"""What soundfile is known to raise for bad data."""


class SoundfileDecoder:
    """A file opened by libsndfile, from any sample on.

    Args:
        reader: the bytes.

    Raises:
        AudioError: if libsndfile can't read it either; the text says why, without the file's name.
    """

    def __init__(self, reader: ByteReader) -> None:
        reader.seek(0)
        try:
            self._file = soundfile.SoundFile(reader, mode="r")
        except FOREIGN_ERRORS as error:
            raise AudioError(f"can't be decoded by libsndfile ({error})") from error
        self.rate_hz = int(self._file.samplerate)
        self.num_channels = int(self._file.channels)
        if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ or self.num_channels > MAX_CHANNELS:
            self.close()
            raise AudioError(f"claims {self.num_channels} channels at {self.rate_hz} Hz, which is no real recording")
        self.channel_names = ("NONE",) * self.num_channels
        """libsndfile names channels in its own way, which isn't read."""
        self.damaged = 0
        self.broken = False
        try:
            empty = self._file.read(1, dtype="float32").size == 0
        except FOREIGN_ERRORS as error:
            self.close()
            raise AudioError(f"can't be decoded by libsndfile ({error})") from error
        if empty:
            self.close()
            raise AudioError("holds no sample that can be decoded")
        self.declared_s: float | None = self._file.frames / self.rate_hz if 0 < self._file.frames < 2**48 else None
        self.tags = {name.lower(): str(value) for name, value in self._file.copy_metadata().items()}

    def close(self) -> None:
        """Free libsndfile's buffers; the reader stays open."""
        self._file.close()

    def count_rest(self) -> int:
        """Return how many samples lie behind those decoded so far."""
        return max(0, int(self._file.frames - self._file.tell()))

    def blocks(self, start: int) -> Iterator[Samples]:
        """Decode from sample `start` on, in float32 blocks (C, n); may be called again."""
        self.broken = False
        try:
            self._file.seek(0)
            if start < self._file.frames:
                self._file.seek(start)
            else:
                return
            while True:
                block = self._file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
                if block.shape[0] == 0:
                    return
                yield np.ascontiguousarray(block.T)
        except FOREIGN_ERRORS:
            self.broken = True
