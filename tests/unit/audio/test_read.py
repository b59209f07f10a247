from __future__ import annotations

import importlib.util
import io
import os
import random
import struct
import sys
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mu_llama.audio.read import AudioWarning, open_audio, read_audio
from mu_llama.errors import AudioError, AudioNotFoundError

_spec = importlib.util.spec_from_file_location("audio_test_media", Path(__file__).with_name("media.py"))
assert _spec is not None
assert _spec.loader is not None
media = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(media)

LOSSLESS = {
    "wav": lambda: media.pcm(media.music(), "WAV", "PCM_16"),
    "aiff": lambda: media.pcm(media.music(), "AIFF", "PCM_16"),
    "caf": lambda: media.pcm(media.music(), "CAF", "PCM_24"),
    "flac": lambda: media.pcm(media.music(), "FLAC", "PCM_16"),
}
LOSSY = {
    "mp3": lambda: media.encoded(media.music(), "mp3", "libmp3lame"),
    "vorbis": lambda: media.pcm(media.music(), "OGG", "VORBIS"),
    "opus": lambda: media.encoded(media.music(rate_hz=48000), "ogg", "libopus", rate_hz=48000),
    "webm": lambda: media.encoded(media.music(rate_hz=48000), "webm", "libopus", rate_hz=48000),
    # noise substitution draws from a random generator, whose state depends on where decoding began
    "m4a": lambda: media.encoded(media.music(), "mp4", "aac", options={"aac_pns": "0"}),
    "aac": lambda: media.encoded(media.music(), "adts", "aac", options={"aac_pns": "0"}),
    "mpegts": lambda: media.encoded(media.music(), "mpegts", "aac", options={"aac_pns": "0"}),
    "tta": lambda: media.encoded(media.music(), "tta", "tta"),
    "wavpack": lambda: media.encoded(media.music(), "wv", "wavpack"),
}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: make() for name, make in (LOSSLESS | LOSSY).items()}


def samples_of(source, **options) -> np.ndarray:
    with open_audio(source, **options) as stream:
        return np.concatenate(list(stream), axis=1)


def ffmpeg_samples(data: bytes) -> np.ndarray:
    """What FFmpeg itself gives, in order, from the start to the end."""
    with av.open(io.BytesIO(data)) as container:
        frames = [f.to_ndarray() for f in container.decode(audio=0)]
    return np.concatenate([f.astype(np.float32) for f in frames], axis=1)


# --- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("AIFF", "PCM_S8"), ("AIFF", "PCM_16"), ("CAF", "PCM_24"),
        ("W64", "PCM_16"), ("AU", "PCM_32"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"),
    ],
)  # fmt: skip
def test_pcm_and_flac_are_exact(container: str, subtype: str, channels: int, rate_hz: int) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (channels, 2000)).astype(np.float32)
    sound[:, 0], sound[:, 1] = -1, 1
    data = media.pcm(sound, container, subtype, rate_hz=rate_hz)
    with open_audio(data) as stream:
        assert (stream.rate_hz, stream.num_channels) == (rate_hz, channels)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(samples_of(data), expected.T)


def test_sixteen_channels_and_planar_eight_channels() -> None:
    data = media.pcm(np.random.default_rng(0).uniform(-1, 1, (16, 999)), "WAV", "PCM_16", rate_hz=8000)
    np.testing.assert_array_equal(samples_of(data), soundfile.read(io.BytesIO(data), dtype="float32")[0].T)
    sound = media.music(1, rate_hz=48000, channels=8)
    planar = media.encoded(sound, "wv", "wavpack", rate_hz=48000, layout="7.1")
    assert samples_of(planar).shape == (8, 48000)
    np.testing.assert_allclose(samples_of(planar), sound, atol=0.004)  # the encoder takes 8 bits


@pytest.mark.parametrize("name", ["mp3", "opus", "m4a", "vorbis"])
def test_lossy_files_equal_ffmpegs_own_output(files: dict[str, bytes], name: str) -> None:
    np.testing.assert_array_equal(samples_of(files[name]), ffmpeg_samples(files[name]))


@pytest.mark.parametrize("name", ["mp3", "opus"])
def test_encoder_delay_is_removed_once(files: dict[str, bytes], name: str) -> None:
    rate_hz = 48000 if name == "opus" else 44100
    sound, decoded = media.music(rate_hz=rate_hz), samples_of(files[name])
    assert decoded.shape == sound.shape
    assert np.abs(decoded - sound)[:, 5000:-5000].max() < 0.05


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("offset_s", [0.5, 1.02, 1.2345, 2.0, 2.9])
def test_an_offset_is_exact_to_the_sample(files: dict[str, bytes], name: str, offset_s: float) -> None:
    whole = samples_of(files[name])
    start = round(offset_s * (48000 if name in ("opus", "webm") else 44100))
    part = samples_of(files[name], offset_s=offset_s)
    assert part.shape == whole[:, start:].shape
    np.testing.assert_allclose(part, whole[:, start:], atol=1e-6)
    short = samples_of(files[name], offset_s=offset_s, duration_s=0.05)
    np.testing.assert_allclose(short, part[:, : short.shape[1]], atol=1e-6)
    assert short.shape[1] == min(part.shape[1], round(0.05 * (48000 if name in ("opus", "webm") else 44100)))


def test_the_name_does_not_decide_the_format(files: dict[str, bytes], tmp_path: Path) -> None:
    for odd in ["song.txt", "song.m3u8", "песня 歌 №1.mp3", "noextension"]:
        path = tmp_path / odd
        path.write_bytes(files["flac"])
        np.testing.assert_array_equal(samples_of(path), samples_of(files["flac"]))


def test_the_sound_of_a_video(tmp_path: Path) -> None:
    path = media.video(tmp_path / "clip.mp4", sound=True)
    assert samples_of(path).shape[0] == 2
    assert samples_of(str(path), offset_s=2.0).shape[1] == pytest.approx(44100, abs=2048)
    with pytest.raises(AudioError, match=r"^mute.mp4: has no sound, only video; give a file with an audio"):
        open_audio(media.video(tmp_path / "mute.mp4", sound=False))


def test_libsndfile_is_the_second_try() -> None:
    sound = media.music(2.0)
    data = media.pcm(sound, "MAT5", "PCM_16")
    with pytest.raises(av.FFmpegError):
        av.open(io.BytesIO(data))
    np.testing.assert_allclose(samples_of(data), sound, atol=1e-4)
    np.testing.assert_array_equal(samples_of(data, offset_s=1.5), samples_of(data)[:, 66150:])
    with pytest.raises(AudioError, match="no sound at offset 5 s"):
        samples_of(data, offset_s=5)


def test_file_objects_from_where_they_stand(files: dict[str, bytes]) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            return self._data.readinto(buffer)

    expected = samples_of(files["m4a"])
    with io.BytesIO(b"prefix" + files["m4a"]) as file:
        file.seek(6)
        np.testing.assert_array_equal(samples_of(file), expected)
        assert not file.closed
    np.testing.assert_array_equal(samples_of(Pipe(files["m4a"])), expected)
    with pytest.raises(AudioError, match="binary mode"):
        open_audio(io.StringIO("text"))


def test_a_stream_can_be_gone_through_again(files: dict[str, bytes]) -> None:
    with open_audio(files["mp3"], offset_s=1.0) as stream:
        first, second = (np.concatenate(list(stream), axis=1) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert stream.has_sample(first.shape[1] - 1)
        assert not stream.has_sample(first.shape[1])


def test_read_audio_is_the_mean_at_the_rate_wanted(files: dict[str, bytes]) -> None:
    wave = read_audio(files["wav"])
    np.testing.assert_allclose(wave.samples, samples_of(files["wav"]).mean(axis=0), atol=1e-7)
    resampled = read_audio(files["wav"], rate_hz=24000, offset_s=1.0, duration_s=1.5)
    assert (resampled.rate_hz, resampled.samples.size) == (24000, 36000)
    with pytest.raises(AudioError, match="rate_hz is 0"):
        read_audio(files["wav"], rate_hz=0)


@pytest.mark.filterwarnings("ignore::mu_llama.audio.read.AudioWarning")  # at the seams
def test_rate_and_channels_may_change_inside_a_file() -> None:
    options = {"write_xing": "0"}

    def mp3(rate_hz: int, channels: int) -> bytes:
        file = io.BytesIO()
        layout = "mono" if channels == 1 else "stereo"
        with av.open(file, "w", format="mp3", options=options) as output:
            stream = output.add_stream("libmp3lame", rate=rate_hz, layout=layout)
            media._encode(output, stream, media.music(2, rate_hz=rate_hz, channels=channels), rate_hz, layout)
        return file.getvalue()

    for parts in ([(44100, 2), (48000, 2)], [(44100, 2), (44100, 1)], [(48000, 1), (44100, 2), (48000, 1)]):
        with open_audio(b"".join(mp3(*part) for part in parts)) as stream:
            assert (stream.rate_hz, stream.num_channels) == parts[0]
            sound = np.concatenate(list(stream), axis=1)
        assert sound.shape[1] / parts[0][0] == pytest.approx(2 * len(parts), abs=0.25)
        spectrum = np.abs(np.fft.rfft(sound[0, -parts[0][0] :]))
        assert abs(int(spectrum.argmax()) - 220) < 120  # the tone didn't change its pitch


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp3", "libmp3lame"), ("flac", "flac"), ("mp4", "aac"), ("wav", "pcm_s16le")],
)
@pytest.mark.parametrize(
    "broken", ["Caf\xe9".encode("latin-1"), "\u591c\u306e".encode("shift-jis"), b"\xff\xfe\xed\xa0\x80"]
)
def test_tags_of_any_bytes_never_end_the_reading(container: str, codec: str, broken: bytes) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=44100, layout="stereo")
        output.metadata["title"] = "\u00e9 " + "x" * len(broken)
        output.metadata["artist"] = "Somebody"
        media._encode(output, stream, media.music(0.5), 44100, "stereo")
    data = file.getvalue().replace(b"x" * len(broken), broken)
    assert broken in data
    with open_audio(data) as opened:
        assert sum(block.shape[1] for block in opened) >= 22050
        assert opened.tags["title"] == f"\u00e9 {broken.decode('utf-8', 'replace')}"
        assert opened.tags["artist"] == "Somebody"


# --- what is refused --------------------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path: Path, files: dict[str, bytes]) -> Path:
    path = tmp_path / "canary.wav"
    path.write_bytes(files["wav"])
    return path


def reference_files(canary: Path) -> dict[str, bytes]:
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\n{canary}\n#EXT-X-ENDLIST\n"
    texts = {
        "list.m3u8": hls,
        "list.wav": hls,
        "list": hls,
        "script.ffconcat": f"ffconcat version 1.0\nfile '{canary}'\n",
        "script.mp3": f"ffconcat version 1.0\nfile '{canary}'\n",
        "disc.cue": f'FILE "{canary}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "list.pls": f"[playlist]\nFile1={canary}\nNumberOfEntries=1\n",
        "list.asx": f'<asx version="3.0"><entry><ref href="{canary}"/></entry></asx>',
        "list.xspf": f'<?xml version="1.0"?><playlist><track><location>file://{canary}</location></track></playlist>',
        "call.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "live.mpd": f'<?xml version="1.0"?><MPD type="static"><Period><BaseURL>file://{canary}</BaseURL></Period></MPD>',
        "cut.edl": f"# mpv EDL v0\n{canary},0,1\n",
    }
    return {name: text.encode() for name, text in texts.items()}


def quicktime_reference(canary: Path) -> bytes:
    """A MOV whose samples are said to lie in another file."""
    data = bytearray(media.encoded(media.music(1), "mov", "pcm_s16le"))
    path = str(canary).encode()
    alias = bytes(10) + b"\1" + b"v".ljust(27, b"\0") + bytes(12) + b"\x0acanary.wav".ljust(64, b"\0") + bytes(16)
    alias += struct.pack(">hh", 1, 1) + bytes(16)
    for kind, name in ((2, path[1:]), (18, path)):
        alias += struct.pack(">hh", kind, len(name)) + name + bytes(len(name) % 2)
    alias += struct.pack(">hh", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    at = data.index(b"dref") - 4
    old_size = int.from_bytes(data[at : at + 4], "big")
    data[at : at + old_size] = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = data.index(box) - 4
        size = int.from_bytes(data[at : at + 4], "big") + 16 + len(entry) - old_size
        data[at : at + 4] = size.to_bytes(4, "big")
    return bytes(data)


def test_references_to_other_files_are_never_followed(canary: Path, tmp_path: Path) -> None:
    opened: list[str] = []
    sys.addaudithook(
        lambda event, details: opened.append(f"{event} {details}") if event in ("open", "socket.connect") else None
    )
    kept_atime = 946684800
    for name, data in (reference_files(canary) | {"alias.mov": quicktime_reference(canary)}).items():
        path = tmp_path / name
        path.write_bytes(data)
        os.utime(canary, (kept_atime, kept_atime + 9))
        opened.clear()
        for source in (path, str(path), data, io.BytesIO(data)):
            with pytest.raises(AudioError) as caught:
                open_audio(source)
            assert "\n" not in str(caught.value)
        assert not [line for line in opened if "canary" in line or "connect" in line]
        assert canary.stat().st_atime == kept_atime  # FFmpeg's own opens are seen by no Python hook


def test_the_canary_would_be_heard_without_the_guard(canary: Path, tmp_path: Path) -> None:
    alias = quicktime_reference(canary)
    os.utime(canary, (946684800, 946684800 + 9))
    (tmp_path / "list.m3u8").write_bytes(reference_files(canary)["list.m3u8"])
    (tmp_path / "alias.mov").write_bytes(alias)
    with av.open(
        str(tmp_path / "list.m3u8"), options={"allowed_extensions": "ALL", "extension_picky": "0"}
    ) as container:
        assert container.format.name == "hls"
        assert container.streams.audio
    with av.open(str(tmp_path / "alias.mov"), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 0
    if canary.stat().st_atime == 946684800:
        pytest.skip("this file system keeps no access times, so only Python's own opens are watched")


@pytest.mark.parametrize(
    "name", ["list.m3u8", "list.wav", "script.ffconcat", "disc.cue", "list.pls", "live.mpd", "cut.edl"]
)
def test_playlists_are_named_as_such(canary: Path, name: str) -> None:
    path = canary.with_name(name)
    path.write_bytes(reference_files(canary)[name])
    with pytest.raises(AudioError, match=rf"^{name}: is a playlist or script that points at other files; give"):
        open_audio(path)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/x.mp3", "concat:a|b", "lavfi:sine", "pipe:0", "-", "file:/etc/passwd"]
)
def test_an_address_is_only_a_path_that_does_not_exist(address: str) -> None:
    with pytest.raises(AudioNotFoundError, match="there is no such file"):
        open_audio(address)


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(AudioNotFoundError, match=r"^gone.wav: there is no such file; check the path$"):
        open_audio(tmp_path / "gone.wav")
    with pytest.raises(FileNotFoundError):
        open_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="is a folder"):
        open_audio(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match="pipe or device"):
        open_audio(tmp_path / "pipe")
    with pytest.raises(AudioError, match="pipe or device"):
        open_audio("/dev/zero")
    for path, problem in [("", "is empty"), ("a\0b", "not a usable path"), ("x" * 5000, "can't be opened")]:
        with pytest.raises(AudioError, match=problem):
            open_audio(path)
    with pytest.raises(AudioError, match="given as int"):
        open_audio(3)  # type: ignore[arg-type]
    with pytest.raises(AudioError) as caught:
        open_audio(tmp_path / "two\nlines\udcff.wav")
    assert str(caught.value).encode().count(b"\n") == 0


def test_no_permission(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.wav"
    path.write_bytes(files["wav"])

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match=r"^locked.wav: may not be read \(permission denied\)"):
        open_audio(path)


def test_a_disk_that_fails(files: dict[str, bytes]) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 200_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(AudioError, match="reading failed"):
        samples_of(Failing(files["wav"]))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello world\n" * 100, "is text, not audio"),
        (b"\xff\xfe" + bytes(range(256)) * 50, "isn't audio"),
        (bytes(5000), "isn't audio"),
        (media.pcm(np.zeros((1, 0)), "WAV", "PCM_16"), "holds no sample"),
        (media.pcm(np.full((1, 9000), np.nan), "WAV", "FLOAT"), "NaN or infinite"),
        (media.pcm(np.full((1, 9000), 1e300), "WAV", "DOUBLE"), "NaN or infinite"),
        (media.pcm(np.zeros((1, 900)), "WAV", "PCM_16", rate_hz=7), "claims 1 channels at 7 Hz"),
        (media.pcm(np.zeros((1, 900)), "WAV", "PCM_16", rate_hz=2**31 - 1), "1 channels at 2147483647 Hz"),
        (media.pcm(np.zeros((200, 90)), "WAV", "PCM_16"), "holds no sample"),
    ],
    # Named here: a WAV of floats holds the second it was written in, and workers must agree on the tests' names.
    ids=["empty", "text", "UTF-16", "zeros", "no sample", "NaN", "infinite", "7 Hz", "2 GHz", "200 channels"],
)  # fmt: skip
def test_bad_data(data: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "my song.mp3"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=rf"^my song.mp3: .*({problem}).*; [^\n]*$"):
        samples_of(path)


@pytest.mark.parametrize(
    ("offset_s", "duration_s"),
    [(-1, None), (float("nan"), None), ("1", None), (None, None), (0, 0), (0, -1), (0, float("inf")), (0, "1")],
)
def test_impossible_ranges(files: dict[str, bytes], offset_s: float, duration_s: float | None) -> None:
    with pytest.raises(AudioError, match=r"expected (seconds|more)"):
        open_audio(files["wav"], offset_s=offset_s, duration_s=duration_s)


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("offset_s", [30, 1e9, 1e300])
def test_an_offset_after_the_end(files: dict[str, bytes], name: str, offset_s: float) -> None:
    with pytest.raises(AudioError, match=r"no sound at offset \S+ s, it ends at (2\.9|3)\S* s; choose an"):
        samples_of(files[name], offset_s=offset_s)
    assert samples_of(files[name], duration_s=offset_s).shape[1] > 100_000


def test_an_offset_after_the_end_of_a_truncated_file_names_its_true_end(files: dict[str, bytes]) -> None:
    with pytest.raises(AudioError, match=r"it ends at 0\.9"):
        samples_of(files["wav"][: len(files["wav"]) // 3], offset_s=2.0)


def test_a_git_lfs_pointer_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n")
    for source in (path, path.read_bytes()):
        with pytest.raises(AudioError, match=r"is a Git LFS pointer, not the file itself; run `git lfs pull`$"):
            open_audio(source)


# --- how long it is ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error::mu_llama.audio.read.AudioWarning")  # also not at the seam
@pytest.mark.parametrize("options", [{}, {"b": "320k"}, {"write_xing": "0"}], ids=str)
def test_joined_mp3s_are_as_long_as_what_is_read(options: dict[str, str]) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp3", options={k: v for k, v in options.items() if k == "write_xing"}) as output:
        codec_options = {k: v for k, v in options.items() if k == "b"}
        stream = output.add_stream("libmp3lame", rate=44100, layout="stereo", options=codec_options)
        media._encode(output, stream, media.music(4), 44100, "stereo")
    one = file.getvalue()
    with open_audio(one) as single:
        assert single.length_s == (None if options == {"write_xing": "0"} else pytest.approx(4, abs=0.1))
        whole_s = sum(block.shape[1] for block in single) / 44100
        assert single.length_s == whole_s
    with open_audio(b"ID3\x04\0\0\0\0\1\0" + bytes(128) + one + one) as stream:
        assert stream.declared_s is None  # FFmpeg's own guess is 5 s or so
        read_s = sum(block.shape[1] for block in stream) / 44100
        assert read_s == pytest.approx(2 * whole_s, abs=0.2)
        assert stream.length_s == read_s


@pytest.mark.parametrize("num_files", [2, 3])
def test_the_seams_of_joined_mp3s_are_no_damage_and_a_cut_file_among_them_is(num_files: int) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as output:
        stream = output.add_stream("libmp3lame", rate=44100, layout="stereo")
        media._encode(output, stream, media.music(4), 44100, "stereo")
    one = file.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples_of(one * num_files)
    with pytest.warns(AudioWarning, match="has 1 damaged packet, which was left out"):
        samples_of(one[:-200] + one * (num_files - 1))


def test_a_length_is_what_was_read_where_the_header_states_less(files: dict[str, bytes]) -> None:
    data = bytearray(files["flac"])
    data[21] &= 0xF0
    data[22:26] = (44100).to_bytes(4)  # of 3 s; the count of samples in STREAMINFO
    with open_audio(bytes(data)) as stream:
        assert (stream.declared_s, stream.length_s) == (1.0, 1.0)
        read_s = sum(block.shape[1] for block in stream) / 44100
        assert stream.length_s == read_s
    if read_s <= 1.0:
        pytest.skip("this FFmpeg stops where the header ends")
    with open_audio(bytes(data), duration_s=2.5) as stream:
        list(stream)
        assert stream.length_s == 2.5
    assert not stream.truncated


# --- what is damaged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wav", "aiff", "flac", "mp3", "vorbis", "opus", "webm", "wavpack"])
def test_a_truncated_file_gives_what_it_has_and_warns(files: dict[str, bytes], name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = samples_of(files[name])
    cut = files[name][: len(files[name]) * 4 // 5 + 1]
    with open_audio(cut) as stream:
        with pytest.warns(AudioWarning, match=r"ends early, after .*; copy or download it again"):
            part = np.concatenate(list(stream), axis=1)
        assert stream.truncated
    assert 0.2 < part.shape[1] / whole.shape[1] < 0.9
    np.testing.assert_allclose(part[:, :20000], whole[:, :20000], atol=1e-6)


def test_damaged_packets_are_left_out(files: dict[str, bytes]) -> None:
    data = bytearray(files["m4a"])
    third = len(data) // 3
    data[third : third + 600] = b"\xff" * 600
    with open_audio(bytes(data)) as stream:
        with pytest.warns(AudioWarning, match="damaged packets"):
            part = np.concatenate(list(stream), axis=1)
        assert stream.num_damaged > 0
    assert part.shape[1] > 100_000


@pytest.mark.filterwarnings("ignore::mu_llama.audio.read.AudioWarning")
@pytest.mark.parametrize("name", ["wav", "mp3", "vorbis", "flac", "m4a", "opus", "webm", "aiff", "mpegts"])
def test_broken_bytes_give_samples_or_one_line(files: dict[str, bytes], name: str) -> None:
    for seed in range(30):
        rng, data = random.Random(seed), bytearray(files[name])
        if seed % 3 == 0:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.choice([0, 1, 10, 100])):
            at = rng.randrange(max(1, len(data) if seed % 2 else min(len(data), 400)))
            data[at : at + 1] = bytes([rng.randrange(256)])
        message = ""
        sound = np.zeros(0)
        try:
            sound = samples_of(bytes(data), offset_s=rng.choice([0, 0, 1.5]), duration_s=100)
        except AudioError as error:
            message = str(error)
        assert "\n" not in message
        assert np.isfinite(sound).all()
        assert message or sound.size
