"""Loudness by channel layout, and what is read of a source: every kind of it, once, with its real length."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import tempfile
import threading
import tracemalloc
import warnings
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mu_llama.audio import source as audio_source
from mu_llama.audio.facts import Facts, measure_facts
from mu_llama.audio.facts.libraries import load_libraries
from mu_llama.audio.facts.loudness import LoudnessMeter, channel_weights
from mu_llama.audio.facts.measure import read_sound
from mu_llama.audio.read import AudioWarning
from mu_llama.audio.waveform import Waveform
from mu_llama.cli.main import typer_app
from mu_llama.errors import AudioError
from tests.unit.audio.media import encoded

RATE_HZ = 22050
LAYOUTS = [
    "mono", "stereo", "downmix", "binaural", "2.1", "3.0", "3.0(back)", "4.0", "quad", "quad(side)", "3.1", "5.0",
    "5.0(side)", "4.1", "5.1", "5.1(side)", "6.0", "6.0(front)", "3.1.2", "hexagonal", "6.1", "6.1(back)",
    "6.1(front)", "7.0", "7.0(front)", "7.1", "7.1(wide)", "7.1(wide-side)", "5.1.2", "5.1.2(back)", "octagonal",
    "cube", "5.1.4", "7.1.2", "7.1.4", "7.2.3", "9.1.4", "9.1.6", "hexadecagonal", "22.2",
]  # fmt: skip


def ebur128_lufs(samples: np.ndarray, rate_hz: int, layout: str) -> float:
    """Integrated loudness by FFmpeg's filter of samples (C, S), which FFmpeg prints to a file."""
    graph, base = av.filter.Graph(), Fraction(1, rate_hz)
    printed = Path(tempfile.mkstemp(suffix=".txt")[1])
    chain = [
        graph.add_abuffer(sample_rate=rate_hz, format="flt", layout=layout, time_base=base),
        graph.add("ebur128", "metadata=1"),
        graph.add("ametadata", f"mode=print:key=lavfi.r128.I:direct=1:file={printed}"),
        graph.add("abuffersink"),
    ]
    for earlier, later in itertools.pairwise(chain):
        earlier.link_to(later)
    graph.configure()
    packed = np.ascontiguousarray(samples.T.reshape(1, -1), np.float32)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, base
    graph.push(frame)
    with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            graph.pull()
    text = printed.read_text()
    printed.unlink()
    return float(text.rsplit("=", 1)[1]) if "=" in text else -70.0


def metered_lufs(samples: np.ndarray, rate_hz: int, names: tuple[str, ...]) -> float | None:
    meter = LoudnessMeter(load_libraries(), rate_hz, names)
    for start in range(0, samples.shape[1], 7001):
        meter.feed(samples[:, start : start + 7001])
    return meter.integrated_lufs()


def changing_noise(seconds: float, rate_hz: int, channels: int) -> np.ndarray:
    """Noise of another level in each channel and every second, now and then below the gates."""
    chance = np.random.default_rng(channels)
    levels = 10 ** chance.uniform(-4, -0.7, (channels, int(np.ceil(seconds))))
    noise = chance.normal(0, 1, (channels, round(seconds * rate_hz)))
    return (noise * np.repeat(levels, rate_hz, axis=1)[:, : noise.shape[1]]).astype(np.float32)


LATER_LAYOUTS = {"binaural", "5.1.2(back)", "9.1.6"}
"""Named by FFmpeg from 8.0 on; PyAV 14.0 brings 7.1."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loudness_is_that_of_ebur128_on_every_layout(layout: str) -> None:
    if layout in LATER_LAYOUTS and av.library_versions["libavutil"] < (60,):
        pytest.skip(f"this FFmpeg has no layout {layout}")
    names = tuple(channel.name for channel in av.AudioLayout(layout).channels)
    sound = changing_noise(4, 16000, len(names))
    assert metered_lufs(sound, 16000, names) == pytest.approx(ebur128_lufs(sound, 16000, layout), abs=0.05)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 44100, 48000, 96000])
def test_loudness_is_that_of_ebur128_at_every_rate(rate_hz: int) -> None:
    sound = changing_noise(4.37, rate_hz, 2)
    assert metered_lufs(sound, rate_hz, ("FL", "FR")) == pytest.approx(ebur128_lufs(sound, rate_hz, "stereo"), abs=0.1)


def test_channels_without_names_stand_in_their_usual_order() -> None:
    assert channel_weights(("NONE",) * 6).tolist() == [1.0, 1.0, 1.0, 0.0, 1.41, 1.41]
    assert channel_weights(("NONE",) * 3).tolist() == [1.0, 1.0, 1.0]


def six_channels(playing: int) -> bytes:
    """FLAC in 5.1 (FL FR FC LFE SL SR), one channel of which plays a low pulse at 120 BPM."""
    time_s = np.arange(8 * RATE_HZ) / RATE_HZ
    sound = np.zeros((6, time_s.size), np.float32)
    sound[playing] = 0.5 * np.sin(2 * np.pi * 60 * time_s) * np.exp(-12 * (time_s % 0.5))
    return encoded(sound, "flac", "flac", rate_hz=RATE_HZ, layout="5.1(side)")


def test_the_low_frequency_channel_has_no_loudness() -> None:
    facts = measure_facts(six_channels(3))
    assert facts.loudness_lufs is None
    assert facts.tempo_bpm is not None


def test_a_surround_channel_alone_is_measured() -> None:
    front, surround = (measure_facts(six_channels(channel)) for channel in (0, 5))
    assert front.loudness_lufs is not None
    assert surround.loudness_lufs is not None
    gain = 10 * np.log10(1.41)
    assert float(surround.loudness_lufs.value) - float(front.loudness_lufs.value) == pytest.approx(gain, abs=0.11)
    assert surround.tempo_bpm is not None
    assert surround.tempo_bpm.value == pytest.approx(120, rel=0.03)


def drums(seconds: float = 10, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Noise bursts at 140 BPM; float32 (S,)."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    chance = np.random.default_rng(2)
    return (0.3 * chance.normal(0, 1, time_s.size) * np.exp(-20 * (time_s % (60 / 140)))).astype(np.float32)


@pytest.mark.parametrize("right", [-1.0, -0.95])
def test_channels_that_cancel_in_their_mean_are_measured(right: float, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([drums(), right * drums()], axis=1), RATE_HZ)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts = measure_facts(tmp_path / "a.wav")
    assert facts.tempo_bpm is not None
    assert facts.tempo_bpm.value == pytest.approx(140, rel=0.03)
    assert facts.tempo_bpm.confidence >= 0.8


@pytest.fixture(scope="module")
def flac() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, drums(), RATE_HZ, format="FLAC")
    return file.getvalue()


@pytest.fixture(scope="module")
def expected(flac: bytes) -> Facts:
    return measure_facts(flac)


def test_an_open_file_gives_the_facts_of_its_path(flac: bytes, expected: Facts, tmp_path: Path) -> None:
    assert expected.tempo_bpm is not None
    (tmp_path / "a.flac").write_bytes(flac)
    assert measure_facts(tmp_path / "a.flac") == expected
    with (tmp_path / "a.flac").open("rb") as file:
        assert measure_facts(file) == expected
    assert measure_facts(io.BytesIO(flac)) == expected


def test_a_zip_member_and_a_pipe_give_the_same_facts(flac: bytes, expected: Facts, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.flac", flac)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.flac") as member:
        assert measure_facts(member) == expected
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: os.fdopen(writing, "wb").write(flac))  # a pipe holds less than the file
    writer.start()
    with os.fdopen(reading, "rb") as pipe:
        assert measure_facts(pipe) == expected
    writer.join()


def test_a_source_is_opened_once(flac: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    made = audio_source.ByteReader.__init__

    def counted(self, *arguments, **options) -> None:
        opened.append(self)
        made(self, *arguments, **options)

    monkeypatch.setattr(audio_source.ByteReader, "__init__", counted)
    measure_facts(flac)
    assert len(opened) == 1


def length_s(data: bytes, *, offset_s: float = 0.0, duration_s: float | None = None) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        return read_sound(load_libraries(), data, offset_s=offset_s, duration_s=duration_s).length_s


def file_of(kind: str, seconds: float) -> bytes:
    container, codec, rate_hz = {
        "mp3": ("mp3", "libmp3lame", 44100),
        "flac": ("flac", "flac", 44100),
        "opus": ("ogg", "libopus", 48000),
        "aac": ("adts", "aac", 44100),
        "ac3": ("ac3", "ac3", 48000),
    }[kind]
    sound = np.tile(0.3 * drums(1, rate_hz)[None], int(np.ceil(seconds)))[:, : round(seconds * rate_hz)]
    return encoded(sound, container, codec, rate_hz=rate_hz, layout="mono")


@pytest.mark.parametrize("kind", ["mp3", "flac", "opus", "aac", "ac3"])
def test_joined_files_are_as_long_as_both(kind: str) -> None:
    """Of two files one after the other, headers state the first one's length, or guess."""
    data = file_of(kind, 6)
    assert length_s(data) == pytest.approx(6, abs=0.06)
    assert length_s(data + data) == pytest.approx(12, abs=0.12)


@pytest.mark.parametrize("kind", ["mp3", "flac", "aac"])
def test_the_length_behind_the_measured_part_is_counted(kind: str) -> None:
    data = file_of(kind, 12)
    assert length_s(data, duration_s=5) == pytest.approx(12, abs=0.06)
    assert length_s(data, offset_s=9, duration_s=2) == pytest.approx(12, abs=0.06)
    assert length_s(data + data, duration_s=5) == pytest.approx(24, abs=0.2)
    assert length_s(data[: len(data) // 2], duration_s=2) == pytest.approx(6, abs=0.7)


def test_a_track_that_ends_early_has_its_real_length() -> None:
    data = file_of("flac", 8)
    with pytest.warns(AudioWarning, match="ends early"):
        facts = measure_facts(data[: len(data) // 2])
    assert facts.duration_s == pytest.approx(4, abs=0.5)
    with pytest.warns(AudioWarning, match="ends early"):
        measure_facts(data[: len(data) // 2], duration_s=1)


def test_memory_does_not_grow_with_the_track() -> None:
    def peak_bytes(seconds: float) -> int:
        file = io.BytesIO()
        soundfile.write(file, np.zeros(int(seconds * 8000), np.int16), 8000, format="WAV")
        tracemalloc.start()
        try:
            assert length_s(file.getvalue()) == pytest.approx(seconds)
            return tracemalloc.get_traced_memory()[1] - len(file.getvalue())
        finally:
            tracemalloc.stop()

    assert peak_bytes(1200) < 1.2 * peak_bytes(200)


def test_an_offset_behind_a_waveforms_end_is_refused() -> None:
    with pytest.raises(AudioError, match="no sound at offset 20 s"):
        measure_facts(Waveform(drums(), RATE_HZ), offset_s=20)


def said(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    """Output and errors of `mu-llama facts`."""
    shown = warnings.showwarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            typer_app(["facts", str(path), *options], standalone_mode=False)
    finally:
        warnings.showwarning = shown
    told = capsys.readouterr()
    return told.out, told.err


def test_a_damaged_file_costs_one_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = file_of("flac", 8)
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    out, err = said(tmp_path / "a.flac", capsys)
    assert out.startswith("length    3.") or out.startswith("length    4.")
    assert err.startswith("warning: a.flac: ends early")
    assert err.count("\n") == 1


def test_what_is_not_there_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(6 * RATE_HZ), RATE_HZ)
    out, err = said(tmp_path / "silence.wav", capsys)
    assert out.count("too little sound to measure") == 3
    hiss = 0.1 * np.random.default_rng(0).normal(0, 1, 6 * RATE_HZ)
    soundfile.write(tmp_path / "hiss.wav", hiss, RATE_HZ)
    out, also = said(tmp_path / "hiss.wav", capsys)
    assert [line.split()[1:] for line in out.splitlines()[1:3]] == [["none", "found"]] * 2
    assert json.loads(said(tmp_path / "hiss.wav", capsys, "--json")[0])["tempo_bpm"] is None
    assert err == also == ""
