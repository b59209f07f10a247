"""Files that were cut off, in every container that says how long it is, found without decoding whole ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mu_llama.audio.diagnosis import announced_bytes, find_lost_end, is_joined_mp3
from mu_llama.audio.read import AudioStream, open_audio
from mu_llama.audio.source import open_bytes

av = pytest.importorskip("av")
_RATE_HZ = 44100
_CODECS = {
    "wav": ("pcm_s16le", "s16", "wav"), "aiff": ("pcm_s16be", "s16", "aiff"), "flac": ("flac", "s16", "flac"),
    "mp3": ("mp3", "fltp", "mp3"), "m4a": ("aac", "fltp", "ipod"), "mka": ("flac", "s16", "matroska"),
}  # fmt: skip


def write(path: Path, *, seconds: float, codec: str) -> bytes:
    """Write noise, which no codec makes much smaller in one place than in another."""
    encoder, kind, container_format = _CODECS[codec]
    noise = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * _RATE_HZ)).astype(np.float32)
    samples = (noise * 32767).astype(np.int16) if kind == "s16" else noise
    options = {"movflags": "faststart"} if codec == "m4a" else {}
    with av.open(str(path), "w", format=container_format, options=options) as container:
        stream = container.add_stream(encoder, rate=_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format=kind, layout="mono")
        frame.rate, frame.pts, frame.time_base = _RATE_HZ, 0, Fraction(1, _RATE_HZ)
        fifo = av.AudioFifo()
        fifo.write(frame)
        size = stream.codec_context.frame_size or 4096
        while (part := fifo.read(size, partial=True)) is not None:
            for packet in stream.encode(part):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize("codec", _CODECS)
def test_what_is_cut_is_found(codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(tmp_path / "whole", seconds=6, codec=codec)
    for share in (0.1, 0.8):
        (tmp_path / "cut").write_bytes(whole[: int(share * len(whole))])
        with open_audio(tmp_path / "cut") as stream:
            lost = find_lost_end(stream)
        assert lost is not None
        assert lost.end_s == pytest.approx(6 * share, abs=0.3)
        assert lost.stated_s == pytest.approx(6, abs=0.1)

    def decode_all(stream: AudioStream) -> None:
        raise AssertionError("a whole file is not decoded")

    with open_audio(tmp_path / "whole") as stream:
        monkeypatch.setattr(AudioStream, "__iter__", decode_all)
        assert find_lost_end(stream) is None
        monkeypatch.undo()
        assert sum(block.shape[1] for block in stream) == pytest.approx(6 * _RATE_HZ, abs=2500)  # read from its start


def test_a_cut_ogg_does_not_say_how_long_it_was(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * 22050).astype(np.float32)
    soundfile.write(tmp_path / "whole.ogg", noise, 22050, format="OGG", subtype="VORBIS")
    data = (tmp_path / "whole.ogg").read_bytes()
    with open_audio(data) as stream:
        assert find_lost_end(stream) is None
    with open_audio(data[: len(data) // 2]) as stream:
        lost = find_lost_end(stream)
    assert lost is not None
    assert lost.stated_s is None
    assert 5 < lost.end_s < 11


@pytest.mark.parametrize("data", [b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + b"\0" * 80, b"\xff\xfb" + b"\0" * 200])
def test_headers_of_other_bytes_announce_nothing(data: bytes) -> None:
    assert announced_bytes(open_bytes(data)) is None
    for head in (b"\x1a\x45\xdf\xa3", b"\0\0\0\x18ftyp", b"RIFF", b"\x1a\x45\xdf\xa3\x84abcd\x18\x53\x80\x67\x01"):
        announced_bytes(open_bytes(head))


def test_a_tag_that_is_cut_off_announces_nothing() -> None:
    for data in (b"ID3", b"ID3\x04\x00\x00\x00\x00\x7f"):
        assert announced_bytes(open_bytes(data)) is None
        assert not is_joined_mp3(open_bytes(data))


def test_one_parser_reads_the_byte_count_of_a_first_frame() -> None:
    tag = b"ID3\x04\x00\x00" + bytes((0, 0, 1, 2)) + bytes(130)  # a tag of 130 bytes, in seven-bit bytes
    count = (600).to_bytes(4)
    frame = b"\xff\xfb\x90\x00" + bytes(32) + b"Info" + (3).to_bytes(4) + (7).to_bytes(4) + count
    whole = tag + frame + bytes(600 - len(frame))
    assert announced_bytes(open_bytes(whole)) == len(whole)
    assert not is_joined_mp3(open_bytes(whole))
    assert is_joined_mp3(open_bytes(whole + bytes(100)))
