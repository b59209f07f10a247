"""Looks at the bytes of a file to say why it gave no sound, or not all of it."""

from __future__ import annotations

from mu_llama.audio.source import ByteReader
from mu_llama.git_lfs import LFS_ADVICE, is_lfs_pointer

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


OPEN_ENDED_BYTES = 0x7FF00000
"""A RIFF size from here up is what a program writes that streams and doesn't know the size."""
MP3_FRAME_BYTES = 4096
"""More than the longest frame of an mp3 and some padding before it."""
OGG_PAGE_BYTES = 65307
"""The longest page of an Ogg file."""


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
    reader.seek(0)
    head = reader.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 127
        start = 10 + size
    reader.seek(start)
    frame = reader.read(MP3_FRAME_BYTES)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0:
        return False
    flags = int.from_bytes(frame[at + 4 : at + 8])
    if not flags & 2:  # no byte count
        return False
    at += 8 + 4 * (flags & 1)
    announced = int.from_bytes(frame[at : at + 4])
    return reader.size_bytes - start - announced > max(announced, 1) / 16


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
