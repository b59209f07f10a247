"""Reads a file's headers and its end: why it gave no sound, and whether its sound is all there."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mu_llama.audio.source import ByteReader
from mu_llama.files import LFS_ADVICE, is_lfs_pointer

if TYPE_CHECKING:
    from mu_llama.audio.read import AudioStream

MISSING_S = 0.5
"""A track this much shorter than its header says counts as truncated."""
OPEN_ENDED_BYTES = 0x7FF00000
"""A RIFF size from here up is what a program writes that streams and doesn't know the size."""
MP3_FRAME_BYTES = 4096
"""More than the longest frame of an mp3 and some padding before it."""
OGG_PAGE_BYTES = 65307
"""The longest page of an Ogg file."""
_MAX_BOXES = 100_000
_MP4_FIRST = frozenset((b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"))
_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
_XING_NAMES = (b"Xing", b"Info")
# Distance from an mp3's first frame to its Xing header: MPEG-1 stereo, MPEG-1 mono or MPEG-2 stereo, MPEG-2 mono.
_XING_OFFSETS = (36, 21, 13)
_XING_HAS_FRAMES, _XING_HAS_BYTES = 1, 2
_PLAYLIST_STARTS = (
    b"#extm3u",
    b"#extinf",
    b"ffconcat",
    b"[playlist]",
    b"v=0",
    b"<asx",
    b"<smil",
    b"# mpv edl",
)
_PLAYLIST_MARKS = (
    b"<mpd",
    b"<asx",
    b"<playlist",
    b"<smil",
    b"\nfile ",
    b"track 01 audio",
    b"rtsp://",
    b".m3u8",
)
"""How a list of other files, or a script over them, begins or betrays itself."""


def is_cut_off(reader: ByteReader) -> bool:
    """Tell whether a WAV, AIFF or Ogg file certainly ends before what its headers announce.

    Decoders adapt silently to such a file. Moves the reader.
    """
    reader.seek(0)
    head = reader.read(8)
    if head[:4] in (b"RIFF", b"FORM"):
        announced = int.from_bytes(head[4:], "little" if head[:4] == b"RIFF" else "big")
        return 0 < announced < OPEN_ENDED_BYTES and announced + 8 > reader.size_bytes + 1
    if head[:4] == b"OggS":
        reader.seek(max(0, reader.size_bytes - OGG_PAGE_BYTES))
        tail = reader.read(OGG_PAGE_BYTES)
        page = tail[max(0, tail.rfind(b"OggS")) :]
        num_segments = page[26] if len(page) > 26 else 255
        return len(page) < 27 + num_segments + sum(page[27 : 27 + num_segments])
    return False


def is_joined_mp3(reader: ByteReader) -> bool:
    """Tell whether an mp3 is longer than the header in its first frame says, as if others were appended.

    FFmpeg then ignores the header and guesses the length from a bit rate. Source: libavformat/mp3dec.c, and the Xing
    header, whose byte count starts at the frame that holds it. Moves the reader.
    """
    start = _end_of_id3(reader)
    reader.seek(start)
    frame = reader.read(MP3_FRAME_BYTES)
    announced = _xing_byte_count(frame, max(frame.find(name) for name in _XING_NAMES))
    return announced is not None and reader.size_bytes - start - announced > max(announced, 1) / 16


def explain_refusal(reader: ByteReader, problem: str) -> str:
    """Return the rest of a sentence that begins with the file's name.

    Args:
        reader: the file that no decoder could read.
        problem: what the decoder said.
    """
    reader.seek(0)
    head = reader.read(4096)
    if is_lfs_pointer(head):
        return LFS_ADVICE
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_text = b"\0" not in head and sum(byte < 9 for byte in head) == 0 and not _is_binary(head)
    if is_text and (text.startswith(_PLAYLIST_STARTS) or any(mark in text for mark in _PLAYLIST_MARKS)):
        return "is a playlist or script that points at other files; give the audio files themselves"
    if is_text:
        return "is text, not audio; give an audio file"
    if "no sound" in problem:
        return f"{problem}; give a file with an audio track"
    return f"{problem}; convert it to WAV or FLAC, or download it again"


def _is_binary(head: bytes) -> bool:
    try:
        head[:-4].decode("utf-8")
    except UnicodeDecodeError:
        return sum(byte >= 127 for byte in head) > len(head) // 10
    return False


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
    position = reader.tell()
    head, announced, is_cut = _head(reader, 4), announced_bytes(reader), is_cut_off(reader)
    reader.seek(position)  # the decoder continues from there
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
        # Decoders state such a file's length by its bytes, and its samples all have the same size. What they decode
        # may be shorter: some leave out the last, incomplete packet.
        known_s = end_s if stream.declared_s is None else max(end_s, stream.declared_s)
        stated_s = known_s * announced / reader.size_bytes
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
    for _ in range(_MAX_BOXES):
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
    start = _end_of_id3(reader)
    reader.seek(start)
    frame = reader.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # MPEG audio, layer 3
        return None
    for offset in _XING_OFFSETS:
        if frame[offset : offset + 4] in _XING_NAMES:
            num_bytes = _xing_byte_count(frame, offset)
            return None if num_bytes is None else start + num_bytes
    return None


def _end_of_id3(reader: ByteReader) -> int:
    """Read how long the ID3 tag at the beginning of a file is; 0 where there is none."""
    head = _head(reader, 10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _xing_byte_count(frame: bytes, offset: int) -> int | None:
    """Read how many bytes an mp3 has according to the Xing header at an offset; None where it has no such number.

    Args:
        frame: the first frame of the file.
        offset: where the header begins in it; negative where there is none.
    """
    if offset < 0:
        return None
    flags = int.from_bytes(frame[offset + 4 : offset + 8])
    if not flags & _XING_HAS_BYTES:
        return None
    start = offset + 8 + 4 * (flags & _XING_HAS_FRAMES)
    return int.from_bytes(frame[start : start + 4])


def _head(reader: ByteReader, size: int) -> bytes:
    reader.seek(0)
    return reader.read(size)
