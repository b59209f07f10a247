"""Whether a file's sound is all there, from its headers and a look at its end; only what looks cut is decoded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from mu_llama.audio.diagnosis import OPEN_ENDED_BYTES, is_cut_off
from mu_llama.audio.read import MISSING_S, AudioStream
from mu_llama.audio.source import ByteReader

_MOST_BOXES = 100_000
_MP4_FIRST = frozenset((b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"))
_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
# Distance from an mp3's first frame to its Xing header: MPEG-1 stereo, MPEG-1 mono or MPEG-2 stereo, MPEG-2 mono.
_XING_PLACES = (36, 21, 13)
_HAS_FRAMES, _HAS_BYTES = 1, 2


@dataclass(frozen=True)
class LostEnd:
    """Where the sound of a file ends too early."""

    end_s: float
    """Seconds that can be decoded."""
    stated_s: float | None
    """Seconds that it had once; None where only the cut shows, as in Ogg."""


def find_lost_end(stream: AudioStream) -> LostEnd | None:
    """Find where a file ends that was cut off, such as a download that stopped.

    Costs a few reads and at most one decoded packet for a whole file, and decodes one that looks cut to its end.

    Args:
        stream: of the whole file, not being iterated.

    Returns:
        None for a file that is whole, lacks no more than half a second, or doesn't say how long it is.

    Raises:
        AudioError: if nothing of it can be decoded.
    """
    reader = stream.reader
    place = reader.tell()
    head, announced, is_cut = _head(reader, 4), announced_bytes(reader), is_cut_off(reader)
    reader.seek(place)  # the decoder goes on from there
    if announced is not None:
        seems_whole = announced <= reader.size_bytes + 1
    elif head == b"OggS" or stream.declared_s is None:  # an Ogg's length is what its last page says
        seems_whole = not is_cut
    else:
        seems_whole = stream.has_sample(max(0, int((stream.declared_s - MISSING_S) * stream.rate_hz)))
    if seems_whole:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing is returned
        end_s = stream.offset_s + sum(block.shape[1] for block in stream) / stream.rate_hz
    if stream.declared_s is not None and stream.declared_s - end_s > MISSING_S:
        return LostEnd(end_s, stream.declared_s)
    if head in (b"RIFF", b"FORM") and announced is not None:
        # Decoders take such a file for as long as its bytes are; of its samples all have the same size.
        stated_s = end_s * announced / reader.size_bytes
        return LostEnd(end_s, stated_s) if stated_s - end_s > MISSING_S else None
    return LostEnd(end_s, None) if is_cut else None


def announced_bytes(reader: ByteReader) -> int | None:
    """Read from headers how long a WAV, AIFF, MP4, Matroska or MP3 file says it is; None where it doesn't.

    Moves the reader.
    """
    head = _head(reader, 12)
    if head[:4] in (b"RIFF", b"FORM"):
        size = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        return size + 8 if 0 < size < OPEN_ENDED_BYTES else None
    if head[4:8] in _MP4_FIRST:
        return _end_of_boxes(reader)
    if head[:4] == _EBML:
        return _end_of_segment(reader)
    return _end_of_mp3(reader)


def _end_of_boxes(reader: ByteReader) -> int | None:
    """Walk the outermost boxes of an MP4."""
    place = 0
    for _ in range(_MOST_BOXES):
        if place >= reader.size_bytes:
            return place
        reader.seek(place)
        head = reader.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # up to the end of the file, or no box
            return None
        place += size
    return None


def _end_of_segment(reader: ByteReader) -> int | None:
    """Read where the one segment of a Matroska file ends, unless it was streamed."""
    reader.seek(4)
    size = _vint(reader)
    if size is None:
        return None
    reader.seek(reader.tell() + size)
    if reader.read(4) != _SEGMENT:
        return None
    size = _vint(reader)
    return None if size is None else reader.tell() + size


def _vint(reader: ByteReader) -> int | None:
    """Read a size as EBML has it; all ones mean that it isn't known."""
    first = reader.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = reader.read(length - 1)
    value = int.from_bytes(bytes((first[0] & (0xFF >> length),)) + rest, "big")
    return None if value == (1 << 7 * length) - 1 or len(rest) < length - 1 else value


def _end_of_mp3(reader: ByteReader) -> int | None:
    """Read where an mp3 ends after its Xing or Info header."""
    head, start = _head(reader, 10), 0
    if head[:3] == b"ID3":
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    reader.seek(start)
    frame = reader.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # MPEG audio, layer 3
        return None
    for place in _XING_PLACES:
        if frame[place : place + 4] in (b"Xing", b"Info"):
            flags = int.from_bytes(frame[place + 4 : place + 8], "big")
            at = place + 8 + 4 * (flags & _HAS_FRAMES)
            return start + int.from_bytes(frame[at : at + 4], "big") if flags & _HAS_BYTES else None
    return None


def _head(reader: ByteReader, size: int) -> bytes:
    reader.seek(0)
    return reader.read(size)
