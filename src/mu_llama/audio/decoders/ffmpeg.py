"""Decodes any audio container with PyAV (FFmpeg), walled off from every file but the one it was given."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import av.stream

from mu_llama.audio.decoders.frames import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, to_blocks
from mu_llama.audio.diagnosis import is_joined_mp3
from mu_llama.audio.source import ByteReader
from mu_llama.audio.waveform import Samples
from mu_llama.errors import AudioError

FORMATS = (
    "aac,ac3,adx,aiff,amr,amrnb,amrwb,ape,asf,au,avi,brstm,caf,dsf,dts,eac3,flac,flv,iff,latm,loas,matroska,webm,"
    "mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,nut,ogg,oma,qoa,rm,shn,sox,tak,truehd,tta,voc,w64,wav,wv,"
    "xwma"
)
"""The only containers that are opened: each holds its own sound. Playlists, scripts and images aren't here."""
SEEKABLE = frozenset({"wav", "w64", "aiff", "au", "caf", "flac", "mov,mp4,m4a,3gp,3g2,mj2"})
"""Containers whose index names the exact sample where each packet starts."""
DECLARING = SEEKABLE | {"tta", "wv", "ape", "ogg"}
"""Containers that state how long they are, rather than have FFmpeg guess it from the bit rate."""
PREROLL_S = 1
"""Sound decoded and dropped before an offset, for codecs that remember earlier packets."""
BUFFER_BYTES = 2**17
"""How much is read at a time."""
PCM_PACKET_BYTES = 2**15
"""Largest packet of a WAV: fewer packets cost less, but opening a file reads a number of them."""
FOREIGN_ERRORS = (
    av.FFmpegError,
    ValueError,
    OSError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    MemoryError,
)
"""What PyAV is known to raise for bad data."""
TAGS_OPTIONS = {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Has bytes in tags that aren't UTF-8 kept as surrogates, which PyAV does by itself from version 19 on."""
_Frames = Iterator[Any]


class FfmpegDecoder:
    """The first audio stream of a container, from any sample on.

    Args:
        reader: the bytes.

    Raises:
        AudioError: if FFmpeg can't decode even the first frame; the text says why, without the file's name.
    """

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._frames: _Frames = iter(())
        self._open()
        self.rate_hz, self.num_channels = self._head.sample_rate, self._head.layout.nb_channels
        if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ or self.num_channels > MAX_CHANNELS:
            self.close()
            raise AudioError(f"claims {self.num_channels} channels at {self.rate_hz} Hz, which is no real recording")
        self.channel_names = tuple(channel.name for channel in self._head.layout.channels)
        """FFmpeg's short name of each channel (FL, LFE, SR, ...); `NONE` where the file doesn't say."""
        self.declared_s: float | None = self._declared_s()
        """Length that the container states, if its kind is known to state it."""
        stated = {**self._stream.metadata, **self._container.metadata}
        self.tags = {_printable(name).lower(): _printable(value) for name, value in stated.items()}
        """What the file says about itself (title, artist, genre, ...), names in small letters."""

    def close(self) -> None:
        """Free FFmpeg's buffers; the reader stays open."""
        self._frames = iter(())
        self._container.close()

    def blocks(self, start: int) -> Iterator[Samples]:
        """Decode from sample `start` on, in float32 blocks (C, n); may be called again.

        A change of rate inside the file is resampled to the first rate; a change of the number of channels
        keeps the mean. Afterwards `damaged` and `broken` say what was lost.
        """
        frames, position = self._frames_before(start)
        try:
            for block in to_blocks(frames, rate_hz=self.rate_hz, num_channels=self.num_channels):
                if position + block.shape[1] > start:
                    yield block[:, max(0, start - position) :]
                position += block.shape[1]
        except FOREIGN_ERRORS:
            self.broken = True

    def count_rest(self) -> int:
        """Return how many samples lie behind the frames decoded so far.

        Packets that state their duration are counted without being decoded; the decoder can't go on afterwards.
        """
        rest = Fraction(0)
        for packet in self._packets():
            if packet is None or packet.size == 0:
                break
            if packet.duration and packet.duration > 0:
                rest += packet.duration * self._time_base * self.rate_hz
            else:
                rest += sum(
                    Fraction(frame.samples * self.rate_hz, frame.sample_rate) for frame in self._decoded(iter([packet]))
                )
        return int(rest)

    def _open(self) -> None:
        self._reader.seek(0)
        self.damaged = 0
        """Packets that couldn't be decoded since the last start."""
        self.broken = False
        """Whether reading stopped on an error rather than at the end."""
        try:
            self._container = av.open(
                self._reader,
                mode="r",
                container_options={
                    "format_whitelist": FORMATS,
                    "max_size": str(PCM_PACKET_BYTES),
                    "protocol_whitelist": "none",
                    "enable_drefs": "0",
                    "use_absolute_path": "0",
                },
                buffer_size=BUFFER_BYTES,
                io_open=_refuse,
                **TAGS_OPTIONS,
            )
        except FOREIGN_ERRORS as error:
            raise AudioError(f"isn't audio that FFmpeg can read ({_reason(error)})") from error
        try:
            self._prepare()
        except AudioError:
            self._container.close()
            raise
        except FOREIGN_ERRORS as error:
            self._container.close()
            raise AudioError(f"can't be decoded by FFmpeg ({_reason(error)})") from error

    def _prepare(self) -> None:
        audio = self._container.streams.audio
        if not audio:
            kinds = sorted({stream.type for stream in self._container.streams})
            raise AudioError(f"has no sound, only {', '.join(kinds) or 'an empty container'}")
        self._stream = audio[0]
        if self._stream.codec_context is None:
            raise AudioError("holds audio in a codec that FFmpeg has no decoder for")
        for stream in self._container.streams:
            if stream.index != self._stream.index and hasattr(av.stream, "Discard"):  # saves time; from PyAV 17 on
                stream.discard = av.stream.Discard.all
        self._frames = self._decoded(self._packets())
        first = next(self._frames, None)
        if first is None:
            raise AudioError("holds no sample that can be decoded")
        self._fresh = True
        self._head: Any = first
        self._origin_pts: int | None = first.pts
        self._time_base: Fraction = Fraction(self._stream.time_base or 0)

    def _declared_s(self) -> float | None:
        name, stream = self._container.format.name, self._stream
        # An mp3 whose stream starts late has a LAME header, which counts the frames of the file it was written for.
        is_stated = name in DECLARING or (name == "mp3" and stream.start_time and not self._is_joined())
        if is_stated and stream.duration and stream.duration > 0:
            return float(stream.duration * self._time_base)
        container = self._container
        if name == "matroska,webm" and len(container.streams) == 1 and (container.duration or 0) > 0:
            return float(container.duration / av.time_base)
        return None

    def _is_joined(self) -> bool:
        position = self._reader.tell()  # FFmpeg goes on reading there
        try:
            return is_joined_mp3(self._reader)
        finally:
            self._reader.seek(position)

    def _is_seam(self, packet: Any) -> bool:
        """Whether a packet that can't be decoded is the tag at the head of an mp3 that was appended to another."""
        return self._container.format.name == "mp3" and packet is not None and bytes(packet).startswith(b"ID3")

    def _packets(self) -> Iterator[Any]:
        """Demux; a read error ends the stream like its end does, and is remembered."""
        try:
            yield from self._container.demux(self._stream)
        except FOREIGN_ERRORS:
            self.broken = True
            yield None

    def _decoded(self, packets: Iterator[Any]) -> _Frames:
        """Decode packets to frames with samples; a bad packet is counted and skipped."""
        for packet in packets:
            try:
                frames = self._stream.codec_context.decode(packet)
            except av.error.EOFError:
                return
            except FOREIGN_ERRORS:
                self.damaged += not self._is_seam(packet)
                continue
            for frame in frames:
                if frame.samples > 0 and 0 < frame.layout.nb_channels <= MAX_CHANNELS:
                    yield frame

    def _frames_before(self, start: int) -> tuple[_Frames, int]:
        """Return frames that begin at or before sample `start`, and the sample where they begin."""
        if start > PREROLL_S * self.rate_hz and self._origin_pts is not None and self._time_base:
            for method in (self._seek, self._skip):
                self._restart()
                self._fresh = False
                placed = method(start)
                if placed is not None:
                    return placed
        if not self._fresh:
            self._restart()
        self._fresh = False
        return chain([self._head], self._frames), 0

    def _restart(self) -> None:
        self.close()
        self._open()

    def _position(self, pts: int | None) -> int | None:
        """Return which sample of the track a time stamp names; None if it isn't exactly one."""
        if pts is None or self._origin_pts is None:
            return None
        position = (pts - self._origin_pts) * self._time_base * self.rate_hz
        return int(position) if position.denominator == 1 else None

    def _placed(self, frames: _Frames, start: int) -> tuple[_Frames, int] | None:
        first = next(frames, None)
        position = self._position(first.pts) if first is not None else None
        if position is None or position > start:
            return None
        return chain([first], frames), position

    def _target_pts(self, start: int) -> int:
        seconds = Fraction(start, self.rate_hz) - PREROLL_S
        return (self._origin_pts or 0) + int(seconds / self._time_base)

    def _seek(self, start: int) -> tuple[_Frames, int] | None:
        """Jump close to `start` where the container's index can be trusted to the sample."""
        if self._container.format.name not in SEEKABLE:
            return None
        try:
            self._container.seek(self._target_pts(start), stream=self._stream)
        except FOREIGN_ERRORS:
            return None
        return self._placed(self._decoded(self._packets()), start)

    def _skip(self, start: int) -> tuple[_Frames, int] | None:
        """Read packets up to `start` without decoding them, as long as their time stamps have no gap."""
        if (1 / self._time_base / self.rate_hz).denominator != 1:
            return None  # e.g. milliseconds can't name a sample
        target, expected = self._target_pts(start), None
        for packet in (packets := self._packets()):
            if packet is None or packet.size == 0:
                break
            is_late = expected is None and packet.pts is not None and packet.pts > target
            has_gap = packet.pts is None or not packet.duration or expected not in (None, packet.pts)
            if is_late or has_gap:
                return None
            expected = packet.pts + packet.duration
            if expected >= target:
                return self._placed(self._decoded(chain([packet], packets)), start)
        return None if expected is None else (iter(()), start)  # the track ends before


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    """Refuse a file that refers to another file."""
    raise PermissionError("it refers to another file")


def _printable(text: str) -> str:
    """Put U+FFFD for bytes that aren't UTF-8, given as surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
