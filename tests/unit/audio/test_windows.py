from __future__ import annotations

import itertools
import json
import tracemalloc
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mu_llama.audio.waveform import Waveform
from mu_llama.audio.windows import FULL, PUBLISHED, ListenOptions, Window, WindowPlan, merge_spans, stream_windows
from mu_llama.errors import AudioError, ConfigError
from tests.factories.resample import sinc_resample

GOLDEN = Path(__file__).parents[2] / "golden" / "set_a"


def noise(seconds: float, rate_hz: int, *, seed: int = 0) -> Waveform:
    size = max(1, round(seconds * rate_hz))
    return Waveform(np.random.default_rng(seed).uniform(-0.5, 0.5, size).astype(np.float32), rate_hz)


def stream(source, *, rate_hz: int, plan: WindowPlan | None = None, **part) -> Iterator[Window]:
    return stream_windows(source, rate_hz=rate_hz, options=ListenOptions(window=plan, **part))


def spans(source, **options) -> list[tuple[float, float]]:
    return [(window.start_s, window.end_s) for window in stream(source, **options)]


@pytest.fixture(scope="module")
def two_hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two hour track, 2 kHz mono, mostly a hole in the file."""
    path = tmp_path_factory.mktemp("long") / "two hours.wav"
    num_samples = 7200 * 2000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(2000)
        file.setnframes(num_samples)
        file.writeframesraw(b"")
        file._headerwritten = True  # type: ignore[attr-defined]
    with path.open("r+b") as file:
        file.seek(4)
        file.write((36 + 2 * num_samples).to_bytes(4, "little"))
        file.seek(40)
        file.write((2 * num_samples).to_bytes(4, "little"))
        file.truncate(44 + 2 * num_samples)
    return path


# --- full -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.2, [(0, 0.2)]),
        (60, [(0, 60)]),
        (60.5, [(0, 60.5)]),
        (61, [(0, 60), (60, 61)]),
        (130, [(0, 60), (60, 120), (120, 130)]),
        (180.9, [(0, 60), (60, 120), (120, 180.9)]),
    ],
)
def test_full_hears_every_second(seconds: float, expected: list[tuple[float, float]]) -> None:
    track = noise(seconds, 1000)
    windows = list(stream(track, rate_hz=1000))
    np.testing.assert_allclose([(w.start_s, w.end_s) for w in windows], expected)
    np.testing.assert_array_equal(np.concatenate([w.waveform.samples for w in windows]), track.samples)
    np.testing.assert_allclose(merge_spans((window.start_s, window.end_s) for window in windows), [(0, seconds)])
    assert FULL.weighting == "duration"


def test_full_from_a_file_in_the_middle(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (22050 * 9, 2)).astype(np.float32)
    soundfile.write(tmp_path / "t.wav", sound, 22050, subtype="FLOAT")
    plan = WindowPlan(window_s=2.5)
    windows = list(stream(tmp_path / "t.wav", plan=plan, rate_hz=22050, offset_s=1.0, duration_s=6.25))
    expected = [(1.0, 3.5), (3.5, 6.0), (6.0, 7.25)]
    np.testing.assert_allclose([(w.start_s, w.end_s) for w in windows], expected, atol=1e-4)
    np.testing.assert_allclose(windows[1].waveform.samples, sound[77175:132300].mean(axis=1), atol=1e-7)
    resampled = list(stream(tmp_path / "t.wav", plan=plan, rate_hz=16000))
    assert {w.waveform.rate_hz for w in resampled} == {16000}
    assert sum(w.waveform.samples.size for w in resampled) == 16000 * 9


@pytest.mark.parametrize("plan", [FULL, PUBLISHED], ids=lambda plan: plan.name)
@pytest.mark.parametrize(("size", "from_hz"), [(1, 48000), (1, 8000), (7, 44100), (9600, 48000)])
def test_very_short_tracks(plan: WindowPlan, size: int, from_hz: int) -> None:
    track = Waveform(np.full(size, 0.25, dtype=np.float32), from_hz)
    (window,) = stream(track, plan=plan, rate_hz=24000)
    assert window.waveform.samples.size == -(-size * 24000 // from_hz)


# --- published --------------------------------------------------------------------------------------------


def test_published_windows_are_the_references() -> None:
    cases = json.loads((GOLDEN / "expected.json").read_text())["encode_windows"]
    assert len(cases) > 10
    for case in cases:  # counted at 24 kHz; 24 Hz stands for it here, rounding the same way at the hour
        size = max(1, case["n_samples"] // 1000)
        expected = [(start / 24000, max(1, end // 1000) / 24) for start, end in case["windows"]]
        assert spans(Waveform(np.zeros(size, dtype=np.float32), 24), plan=PUBLISHED, rate_hz=24) == expected


@pytest.mark.parametrize(("from_hz", "to_hz"), [(24, 24), (44, 24), (11, 24), (30, 3)])
def test_published_windows_at_the_full_hours(from_hz: int, to_hz: int) -> None:
    for hours, extra in itertools.product([1, 2, 3], range(-4, 4)):
        size = hours * 3600 * from_hz + extra
        num_seconds = -(-size * to_hz // from_hz) // (to_hz * 60)
        num_windows = len(range(0, num_seconds + 1, 60))  # the published loop
        track = Waveform(np.zeros(size, dtype=np.float32), from_hz)
        assert len(spans(track, plan=PUBLISHED, rate_hz=to_hz)) == num_windows


def test_published_sound_is_the_references() -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    golden = safetensors.load_file(GOLDEN / "expected.safetensors")
    waves = {}
    for name, file in [("short", "audio_short"), ("stereo44", "audio_stereo44"), ("long", "audio_long")]:
        (window,) = stream(GOLDEN / f"{file}.wav", plan=PUBLISHED, rate_hz=24000)
        waves[name] = window.waveform.samples
    assert {name: wave.size for name, wave in waves.items()} == {
        "short": 72000,
        "stereo44": 48000,
        "long": 1440000,
    }
    for key, part in [
        ("short/waveform_first_256", waves["short"][:256]),
        ("stereo44/waveform_24k_every_11", waves["stereo44"][::11]),
        ("stereo44/waveform_24k_first_4096", waves["stereo44"][:4096]),
        ("stereo44/waveform_24k_last_1024", waves["stereo44"][-1024:]),
        ("long/waveform_24k_first_4096", waves["long"][:4096]),
    ]:
        np.testing.assert_allclose(part, golden[f"audio/{key}"], atol=1e-5)
    every_977 = golden["audio/long/waveform_24k_every_977"]
    first_minute = waves["long"][::977]
    np.testing.assert_allclose(first_minute, every_977[: first_minute.size], atol=1e-5)
    # the window's last samples were resampled with the true sound after them, not with silence
    around = golden["audio/long/waveform_24k_around_60s"]
    np.testing.assert_allclose(waves["long"][-2048:], around[:2048], atol=1e-5)


def test_published_windows_share_one_resampling() -> None:
    track = noise(7210, 50)
    windows = list(stream(track, plan=PUBLISHED, rate_hz=30))
    whole = sinc_resample(track.samples, 50, 30)
    assert [(w.start_s, w.end_s) for w in windows] == [(0, 60), (60, 120), (120, 180)]
    np.testing.assert_allclose(np.concatenate([w.waveform.samples for w in windows]), whole[:5400], atol=1e-6)
    assert PUBLISHED.weighting == "equal"
    assert merge_spans((window.start_s, window.end_s) for window in windows) == [(0, 180)]


def test_published_considers_only_the_part_asked_for(two_hours: Path) -> None:
    assert spans(two_hours, plan=PUBLISHED, rate_hz=2000) == [(0, 60), (60, 120), (120, 180)]
    assert spans(two_hours, plan=PUBLISHED, rate_hz=2000, offset_s=1.0) == [(1, 61), (61, 121)]
    assert spans(two_hours, plan=PUBLISHED, rate_hz=2000, duration_s=3599) == [(0, 60)]
    assert spans(two_hours, plan=PUBLISHED, rate_hz=2000, offset_s=7190) == [(7190, 7200)]


def test_published_asks_the_sound_and_not_the_header_how_long_it_lasts(two_hours: Path, tmp_path: Path) -> None:
    rate_hz, path = 2000, tmp_path / "streamed.flac"
    with soundfile.SoundFile(path, "w", rate_hz, 1, "PCM_16") as file:
        for _ in range(3601):
            file.write(np.zeros(rate_hz, np.int16))
    data = bytearray(path.read_bytes())
    data[22:26] = (5 * rate_hz).to_bytes(4)  # STREAMINFO says 5 s
    assert spans(bytes(data), plan=PUBLISHED, rate_hz=rate_hz) == [(0, 60), (60, 120)]


# --- both -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "rate_hz", "num_windows"), [(FULL, 2000, 120), (PUBLISHED, 24000, 3)], ids=["full", "published"]
)
def test_memory_does_not_grow_with_the_track(two_hours: Path, plan: WindowPlan, rate_hz: int, num_windows: int) -> None:
    tracemalloc.start()
    count = sum(1 for _ in stream(two_hours, plan=plan, rate_hz=rate_hz))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == num_windows
    assert 500_000 < peak_bytes < 40_000_000  # the whole track would be 57,600,000


def test_a_late_offset_is_quick_and_the_first_window_needs_little(
    two_hours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting:
        def __init__(self, path: Path) -> None:
            self._file, self.num_bytes = path.open("rb"), 0

        def read(self, size: int) -> bytes:
            data = self._file.read(size)
            self.num_bytes += len(data)
            return data

        def __getattr__(self, name: str):
            return getattr(self._file, name)

    for options, plan in [({"offset_s": 7000.0}, FULL), ({}, FULL), ({}, PUBLISHED)]:
        source = Counting(two_hours)
        window = next(stream(source, plan=plan, rate_hz=2000, **options))
        assert window.start_s == options.get("offset_s", 0.0)
        assert source.num_bytes < 4_000_000  # of 28.8 MB


def test_what_can_not_be_windows() -> None:
    with pytest.raises(AudioError, match="no sound at offset 9 s; it lasts 1 s"):
        next(stream(noise(1, 100), rate_hz=100, offset_s=9))
    with pytest.raises(AudioError, match="rate_hz is 0"):
        next(stream(noise(1, 100), rate_hz=0))
    with pytest.raises(AudioError, match="offset_s is -1"):
        next(stream(noise(1, 100), rate_hz=100, offset_s=-1))
    with pytest.raises(ConfigError, match=r"name is 'some'.*window_s is 0"):
        WindowPlan("some", window_s=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="published plan has windows of 60 s"):
        WindowPlan("published", window_s=30)


def test_keys_tell_plans_apart() -> None:
    plans = [FULL, PUBLISHED, WindowPlan(window_s=30), WindowPlan(window_s=30.5)]
    assert [plan.key for plan in plans] == [
        "full-60s-soxr-hq", "published-60s-sinc-hann", "full-30s-soxr-hq", "full-30.5s-soxr-hq",
    ]  # fmt: skip
