"""Reads the sound of any file as a stream of blocks or as one mono waveform, and writes it as WAV."""

from __future__ import annotations

import math
import numbers
import secrets
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import soundfile

from mu_llama.audio.decoders.ffmpeg import FfmpegDecoder
from mu_llama.audio.decoders.soundfile import SoundfileDecoder
from mu_llama.audio.diagnosis import MISSING_S, explain_refusal, is_cut_off
from mu_llama.audio.downmix import Downmix
from mu_llama.audio.resample import ResampleStream
from mu_llama.audio.source import AudioSource, ByteReader, open_bytes
from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.errors import AudioError

__all__ = ["AudioSource", "AudioStream", "AudioWarning", "open_audio", "read_audio"]

MAX_POSITION = 2**53
"""A sample that no track has; offsets and durations beyond mean this one."""


class AudioWarning(UserWarning):
    """Sound that could be read only in part: the text names the file and what is missing."""


class AudioDecoder(Protocol):
    """Interface of a decoding library."""

    rate_hz: int
    num_channels: int
    channel_names: tuple[str, ...]
    declared_s: float | None
    tags: dict[str, str]
    damaged: int
    broken: bool

    def blocks(self, start: int) -> Iterator[Samples]:
        """Decode from sample `start` on."""
        ...

    def count_rest(self) -> int:
        """Count samples behind those decoded so far, without decoding them where that can be done."""
        ...

    def close(self) -> None:
        """Free what the library holds."""
        ...


class AudioStream:
    """The sound of one source between two moments, decoded block by block.

    Each iteration starts anew and yields float32 blocks of shape (C, n) at `rate_hz`; nothing is stored, so
    memory doesn't grow with the file. Made by `open_audio`; a context manager.
    """

    def __init__(self, reader: ByteReader, decoder: AudioDecoder, *, offset_s: float, duration_s: float | None) -> None:
        self._reader, self._decoder = reader, decoder
        self.name = reader.label
        """File name, for messages."""
        self.rate_hz = decoder.rate_hz
        """Samples per second, as stored in the file."""
        self.num_channels = decoder.num_channels
        """C: channels, as stored in the file."""
        self.channel_names = decoder.channel_names
        """Position of each channel in FFmpeg's short names (FL, LFE, SR, ...); `NONE` where it isn't known."""
        self.declared_s = decoder.declared_s
        """Length of the whole file as its header states it, which may be wrong; None where that is a guess."""
        self.tags = decoder.tags
        """What the file says about itself (title, artist, genre, ...), names in small letters."""
        self.truncated = False
        """Whether the last full iteration met the end of the file too early."""
        self.problem: str | None = None
        """What the last full iteration lost, and what to do about it; None where it lost nothing."""
        self.num_damaged = 0
        """Packets that the last iteration couldn't decode and left out."""
        self.offset_s = offset_s
        """Where the stream starts in the file."""
        self._start = sample_at(offset_s, self.rate_hz)
        self._stop = None if duration_s is None else self._start + max(1, sample_at(duration_s, self.rate_hz))
        self._num_read, self._ended = 0, False
        self._num_decoded, self._at_end = 0, False

    def __iter__(self) -> Iterator[Samples]:
        position, self._at_end = self._start, False
        for block in self._decoder.blocks(self._start):
            self._num_decoded = position + block.shape[1]
            if self._stop is not None:
                block = block[:, : self._stop - position]
            if not np.isfinite(block).all():
                raise AudioError(f"{self.name}: holds NaN or infinite samples; export it again as PCM or FLAC")
            position += block.shape[1]
            self._num_read = max(self._num_read, position)
            yield block
            if position == self._stop:
                return
        self._at_end = True
        if self._reader.failure is not None:
            failure = self._reader.failure
            raise AudioError(f"{self.name}: reading failed ({failure}); check the disk or stream") from failure
        if position == self._start:
            end_s = self._count() / self.rate_hz
            raise AudioError(
                f"{self.name}: has no sound at offset {self.offset_s:g} s, it ends at {end_s:.6g} s; choose an offset "
                "before its end"
            )
        self._ended = True
        self._note_losses(position / self.rate_hz)

    @property
    def length_s(self) -> float | None:
        """Length of the whole file in seconds, as far as it is known.

        Once an iteration came to the end of the file, what it read. Before that, what the header states, or what was
        read where that is more; None where the header states nothing.
        """
        read_s = self._num_read / self.rate_hz
        if self._ended or self.declared_s is None:
            return read_s if self._ended else None
        return max(self.declared_s, read_s)

    @property
    def reader(self) -> ByteReader:
        """The bytes of the file, to read its headers; callers seek back to where it stood."""
        return self._reader

    def has_sample(self, index: int) -> bool:
        """Tell whether the stream reaches sample `index`, counted from its own start."""
        position = self._start + index
        if self._stop is not None and position >= self._stop:
            return False
        return next(self._decoder.blocks(position), None) is not None

    def measured_length_s(self) -> float:
        """Return how long the whole track is: what the last iteration decoded, and what lies behind it.

        Headers can be wrong (joined or truncated files), so packets are counted, without decoding most of them. Call
        it after an iteration; another iteration may follow.
        """
        rest = 0 if self._at_end else self._decoder.count_rest()
        length_s = (self._num_decoded + rest) / self.rate_hz
        if not self._at_end:
            self._note_losses(length_s)
        if rest and self.declared_s is not None and abs(self.declared_s - length_s) < MISSING_S:
            return self.declared_s  # packets are counted with the encoder's padding
        return length_s

    def close(self) -> None:
        """Close the file; iterating afterwards isn't possible."""
        self._decoder.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _count(self) -> int:
        """Decode the whole file to count its samples."""
        return sum(block.shape[1] for block in self._decoder.blocks(0))

    def _note_losses(self, end_s: float) -> None:
        self.num_damaged = self._decoder.damaged
        short_s = (self.declared_s or 0) - end_s
        self.truncated = self._decoder.broken or short_s > MISSING_S or is_cut_off(self._reader)
        if self.truncated:
            promised = f" of {self.declared_s:.1f} s" if short_s > MISSING_S else ""
            problem = f"ends early, after {end_s:.1f} s{promised}"
        elif self.num_damaged:
            were = "packet, which was" if self.num_damaged == 1 else "packets, which were"
            problem = f"has {self.num_damaged} damaged {were} left out"
        else:
            self.problem = None
            return
        self.problem = f"{self.name}: {problem}; copy or download it again"
        warnings.warn(self.problem, AudioWarning, stacklevel=4)


def open_audio(source: AudioSource, *, offset_s: float = 0.0, duration_s: float | None = None) -> AudioStream:
    """Open a source and decode its first frame.

    The container is found by content, never by the file's name; of a video, the first audio stream is
    taken. Files that point at other files or addresses (playlists, scripts) are refused.

    Args:
        source: path, bytes or open binary file, see `AudioSource`.
        offset_s: first second read, exact to the sample.
        duration_s: how many seconds at most; None for all.

    Returns:
        A stream to be iterated and closed.

    Raises:
        AudioNotFoundError: if the path doesn't exist.
        AudioError: if the source can't be read; the text names it and says what to do.
    """
    check_range(offset_s, duration_s)
    reader = open_bytes(source)
    try:
        decoder = _decoder(reader)
    except BaseException:
        reader.close()
        raise
    return AudioStream(reader, decoder, offset_s=offset_s, duration_s=duration_s)


def read_audio(
    source: AudioSource, *, rate_hz: int | None = None, offset_s: float = 0.0, duration_s: float | None = None
) -> Waveform:
    """Read a source into memory as one mono waveform.

    Args:
        source: path, bytes or binary file.
        rate_hz: rate wanted (soxr, quality HQ); None keeps the file's own.
        offset_s: first second read.
        duration_s: how many seconds at most; None for all.

    Returns:
        The mean of the channels; where they cancel (see `Downmix`), the loudest of them, with an `AudioWarning`.

    Raises:
        AudioError: as `open_audio`, and for a rate that isn't positive.
    """
    if rate_hz is not None and rate_hz <= 0:
        raise AudioError(f"rate_hz is {rate_hz}; expected a positive number of samples per second")
    with open_audio(source, offset_s=offset_s, duration_s=duration_s) as stream:
        rate_hz, mix = rate_hz or stream.rate_hz, Downmix()
        samples = _read_mono(stream, mix, rate_hz)
        if mix.settle():
            warn_of_cancelling(stream.name, mix)
            samples = _read_mono(stream, mix, rate_hz)
    return Waveform(samples, rate_hz)


def _read_mono(stream: AudioStream, mix: Downmix, rate_hz: int) -> Samples:
    mix.start(num_channels=stream.num_channels, rate_hz=stream.rate_hz)
    resampler = ResampleStream(stream.rate_hz, rate_hz)
    parts = [resampler.feed(mix.select(block).mean(axis=0, keepdims=True)) for block in stream]
    samples: Samples = np.concatenate([*parts, resampler.finish()], axis=1)[0]
    return samples


def warn_of_cancelling(name: str, mix: Downmix) -> None:
    """Say that a track is read in one channel, after `Downmix.settle`."""
    warnings.warn(
        f"{name}: the channels cancel each other in their mean, as if one had its polarity reversed, so channel "
        f"{(mix.channel or 0) + 1} is used alone; check the recording",
        AudioWarning,
        stacklevel=1,  # one place, so that Python shows it once for each track
    )


def check_range(offset_s: float, duration_s: float | None) -> None:
    """Refuse an offset or duration that names no part of a track.

    Raises:
        AudioError: if the offset is negative, the duration isn't positive, or either isn't finite.
    """
    if not (_is_number(offset_s) and math.isfinite(offset_s) and offset_s >= 0):
        raise AudioError(f"offset_s is {offset_s!r}; expected seconds from 0 up")
    if duration_s is not None and not (_is_number(duration_s) and math.isfinite(duration_s) and duration_s > 0):
        raise AudioError(f"duration_s is {duration_s!r}; expected more than 0 seconds, or None for all")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def sample_at(seconds: float, rate_hz: int) -> int:
    """Return the sample nearest to a moment, or one that no track has where a track can't be that long."""
    return round(min(float(seconds) * rate_hz, float(MAX_POSITION)))


def _decoder(reader: ByteReader) -> AudioDecoder:
    try:
        return FfmpegDecoder(reader)
    except AudioError as first:
        try:
            return SoundfileDecoder(reader)
        except AudioError:
            pass
        if reader.failure is not None:
            raise AudioError(
                f"{reader.label}: reading failed ({reader.failure}); check the disk or stream"
            ) from reader.failure
        raise AudioError(f"{reader.label}: {explain_refusal(reader, str(first))}") from first


def write_wav(source: Path, target: Path) -> None:
    """Convert a file at its own rate and channels; the wav appears whole or not at all.

    Raises:
        AudioError: if the source can't be read, or the wav can't be written.
    """
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            open_audio(source) as stream,
            soundfile.SoundFile(
                scratch, "w", samplerate=stream.rate_hz, channels=stream.num_channels, format="WAV", subtype="PCM_16"
            ) as file,
        ):
            for block in stream:
                file.write(block.T)
        scratch.replace(target)
    except (OSError, soundfile.SoundFileError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{target}: can't be written ({error}); free space or check the folder") from error
    finally:
        with suppress(OSError):
            scratch.unlink()
