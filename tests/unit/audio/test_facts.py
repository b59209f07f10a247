"""Measured facts on sound whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mu_llama.audio.facts import measure_facts
from mu_llama.audio.facts.loudness import LoudnessMeter
from mu_llama.audio.waveform import Waveform
from mu_llama.errors import AudioError
from mu_llama.labels.track import Track
from mu_llama.musicqa.measuring import with_facts
from mu_llama.musicqa.sources.corpus_files import BadTrack

RATE_HZ = 22050


def write(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples.astype(np.float32), RATE_HZ, subtype="FLOAT")
    return path


def clicks(bpm: float, seconds: float = 20) -> np.ndarray:
    samples = np.random.default_rng(0).normal(0, 1e-4, int(seconds * RATE_HZ))
    burst = np.sin(2 * np.pi * 1000 * np.arange(800) / RATE_HZ) * np.exp(-np.arange(800) / 100)
    for start in np.arange(0, seconds - 0.1, 60 / bpm):
        place = int(start * RATE_HZ)
        samples[place : place + burst.size] += 0.8 * burst
    return samples


def chords(roots_and_modes: list[tuple[int, bool]], seconds: float = 16) -> np.ndarray:
    """Triads on notes above middle C, each with its octave and three harmonics."""
    each = int(seconds / len(roots_and_modes) * RATE_HZ)
    time_s, parts = np.arange(each) / RATE_HZ, []
    for root, is_minor in roots_and_modes:
        notes = [root, root + (3 if is_minor else 4), root + 7, root + 12]
        tones = [
            np.sin(2 * np.pi * 261.63 * 2 ** (note / 12) * harmonic * time_s) / harmonic**2
            for note in notes
            for harmonic in (1, 2, 3)
        ]
        parts.append(0.1 * np.sum(tones, axis=0) * np.exp(-time_s / 2))
    return np.concatenate(parts)


@pytest.mark.parametrize("bpm", [72.0, 98.0, 120.0, 143.0])
def test_tempo_of_clicks(bpm: float, tmp_path: Path) -> None:
    tempo = measure_facts(write(tmp_path / "a.wav", clicks(bpm))).tempo_bpm
    assert tempo is not None
    assert isinstance(tempo.value, float)
    assert any(abs(value - bpm) < 0.05 * bpm for value in (tempo.value, *tempo.alternatives))
    assert tempo.confidence >= 0.8


@pytest.mark.parametrize(
    ("progression", "key"),
    [
        ([(0, False), (5, False), (7, False), (0, False)], "C major"),
        ([(9, True), (2, True), (4, True), (9, True)], "A minor"),
        ([(3, False), (8, False), (10, False), (3, False)], "E flat major"),
    ],
)
def test_key_of_cadences(progression: list[tuple[int, bool]], key: str, tmp_path: Path) -> None:
    measured = measure_facts(write(tmp_path / "a.wav", chords(progression * 2))).key
    assert measured is not None
    assert measured.value == key


def test_loudness_and_length(tmp_path: Path) -> None:
    """A sine of 1 kHz at -20 dBFS on one channel reads -23.01 LUFS (EBU Tech 3341: 0 dBFS reads -3.01)."""
    samples = 0.1 * np.sin(2 * np.pi * 997 * np.arange(20 * RATE_HZ) / RATE_HZ)
    facts = measure_facts(write(tmp_path / "a.wav", samples))
    assert facts.loudness_lufs is not None
    assert facts.loudness_lufs.value == pytest.approx(-23.0, abs=0.3)
    assert facts.duration_s == pytest.approx(20.0)


def test_no_loudness_is_a_negative_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoudnessMeter, "integrated_lufs", lambda _: -0.04)
    fact = measure_facts(write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(5 * RATE_HZ)))).loudness_lufs
    assert fact is not None
    assert str(fact.value) == "0.0"


def test_channels_add_up_as_the_standard_says(tmp_path: Path) -> None:
    """The same sine on two channels reads 3 dB more than on one."""
    sine = 0.1 * np.sin(2 * np.pi * 997 * np.arange(10 * RATE_HZ) / RATE_HZ)
    mono, stereo = (
        measure_facts(write(tmp_path / f"{name}.wav", samples)).loudness_lufs
        for name, samples in (("mono", sine), ("stereo", np.stack([sine, sine], axis=1)))
    )
    assert mono is not None
    assert stereo is not None
    assert float(stereo.value) - float(mono.value) == pytest.approx(3.0, abs=0.15)


def test_little_or_no_sound_says_nothing(tmp_path: Path) -> None:
    for samples in (np.zeros(10 * RATE_HZ), clicks(120, seconds=2)):
        facts = measure_facts(write(tmp_path / "a.wav", samples))
        assert (facts.tempo_bpm, facts.key) == (None, None)
    (tmp_path / "b.wav").write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"b\.wav"):
        measure_facts(tmp_path / "b.wav")


def hits(seconds: float, starts: list[float], *, noise: float = 0.0) -> np.ndarray:
    """Snare drums at given moments."""
    chance = np.random.default_rng(1)
    time_s = np.arange(RATE_HZ // 4) / RATE_HZ
    hit = 0.5 * chance.normal(0, 1, time_s.size) * np.exp(-time_s / 0.06) + 0.3 * np.sin(1200 * time_s)
    samples = noise * chance.normal(0, 1, int(seconds * RATE_HZ))
    for start in starts:
        place = int(start * RATE_HZ)
        samples[place : place + hit.size] += 0.7 * hit[: samples.size - place]
    return samples


def tone(hz: float, seconds: float = 12, *, vibrato: float = 0.0) -> np.ndarray:
    """Eight harmonics, for as long as that; vibrato in parts of the pitch, five times a second."""
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(hz * (1 + vibrato * np.sin(2 * np.pi * 5 * time_s))) / RATE_HZ
    return 0.2 * np.sum([np.sin(phase * harmonic) / harmonic for harmonic in range(1, 9)], axis=0)


def noise(colour: float, seconds: float = 12) -> np.ndarray:
    """Noise whose power falls with a power of the frequency: 0 white, 1 pink, 2 brown."""
    size = int(seconds * RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(3).normal(0, 1, size))
    samples = np.fft.irfft(spectrum * np.maximum(np.fft.rfftfreq(size, 1 / RATE_HZ), 20) ** (-colour / 2), size)
    return 0.3 * samples / np.abs(samples).max()


def chance_hits(seconds: float = 20, per_second: float = 2.0) -> np.ndarray:
    starts = np.cumsum(np.random.default_rng(5).exponential(1 / per_second, int(seconds * per_second)))
    return hits(seconds, [start for start in starts if start < seconds - 0.3], noise=1e-3)


def rubato(seconds: float = 20) -> np.ndarray:
    """A scale whose steps take from a third of a second to one and a half, as it pleases."""
    chance, samples, start = np.random.default_rng(6), np.zeros(int(seconds * RATE_HZ)), 0.1
    time_s = np.arange(int(1.5 * RATE_HZ)) / RATE_HZ
    for step in range(60):
        hz = 261.63 * 2 ** ((0, 2, 4, 5, 7, 9, 11)[step % 7] / 12)
        note = 0.3 * np.sin(2 * np.pi * hz * time_s) * np.exp(-3 * time_s) * np.minimum(1, time_s / 0.004)
        place = int(start * RATE_HZ)
        if place >= samples.size:
            break
        samples[place : place + note.size] += note[: samples.size - place]
        start += chance.uniform(0.3, 1.5)
    return samples


WITHOUT_TEMPO_OR_KEY = {
    "one hit in silence": hits(5, [2.0]),
    "one hit in faint noise": hits(10, [9.0], noise=1e-4),
    "three claps": hits(12, [1.0, 2.7, 8.1], noise=1e-4),
    "four hits, evenly": hits(12, [1.0, 1.6, 2.2, 2.8], noise=1e-4),
    "hits at random": chance_hits(),
    "constant offset": np.full(8 * RATE_HZ, 0.4),
    "offset that fades": np.linspace(0.4, 0.0, 10 * RATE_HZ),
    "offset that begins late": np.repeat([0.0, 0.3], 5 * RATE_HZ),
    "white noise": noise(0),
    "pink noise": noise(1),
    "brown noise": noise(2),
    "still tone": tone(220),
    "tone with vibrato": tone(440, vibrato=0.01),
    "fading tone": tone(110) * np.linspace(0, 1, 12 * RATE_HZ),
    "fifth that sounds on": tone(131) + tone(196),
}


@pytest.mark.parametrize("name", WITHOUT_TEMPO_OR_KEY)
def test_nothing_is_claimed_of_what_has_no_tempo_and_no_key(name: str) -> None:
    facts = measure_facts(Waveform(WITHOUT_TEMPO_OR_KEY[name].astype(np.float32), RATE_HZ))
    for fact in (facts.tempo_bpm, facts.key):
        assert fact is None or fact.confidence <= 0.3, fact


@pytest.mark.parametrize(
    "name", ["one hit in silence", "hits at random", "constant offset", "brown noise", "still tone"]
)
def test_where_nothing_repeats_there_is_no_tempo(name: str) -> None:
    assert measure_facts(Waveform(WITHOUT_TEMPO_OR_KEY[name].astype(np.float32), RATE_HZ)).tempo_bpm is None


def test_rubato_has_a_key_and_no_tempo() -> None:
    facts = measure_facts(Waveform(rubato().astype(np.float32), RATE_HZ))
    assert facts.tempo_bpm is None or facts.tempo_bpm.confidence <= 0.3
    assert facts.key is not None


@pytest.mark.parametrize("noise_level", [0.0, 1e-3, 0.03])
def test_steady_drums_keep_their_confidence(noise_level: float) -> None:
    drums = hits(16, [0.5 * beat for beat in range(31)], noise=noise_level)
    tempo = measure_facts(Waveform(drums.astype(np.float32), RATE_HZ)).tempo_bpm
    assert tempo is not None
    assert tempo.value == pytest.approx(120, rel=0.03)
    assert tempo.confidence >= 0.8


def test_cadences_keep_their_confidence() -> None:
    cadence = chords([(0, False), (5, False), (7, False), (0, False)] * 2)
    key = measure_facts(Waveform(cadence.astype(np.float32), RATE_HZ)).key
    assert key is not None
    assert key.confidence >= 0.6


def test_libraries_warn_nobody(recwarn: pytest.WarningsRecorder) -> None:
    for samples in (hits(5, [1.0]), np.full(5 * RATE_HZ, 0.2), chords([(0, False), (7, False)], seconds=5)):
        measure_facts(Waveform(samples.astype(np.float32), RATE_HZ))
    assert [str(warning.message) for warning in recwarn] == []


def test_only_sure_facts_become_labels(tmp_path: Path) -> None:
    noise = write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 10 * RATE_HZ))
    sure = write(tmp_path / "sure.wav", clicks(120))
    (tmp_path / "broken.wav").write_bytes(b"nothing")
    found = [Track("a", sure), Track("b", noise), Track("c", tmp_path / "broken.wav"), Track("d"),
             Track("e", sure, facts={"tempo_bpm": 60.0})]  # fmt: skip
    one, two, three, four, five = with_facts(found)
    assert isinstance(one, Track)
    assert one.facts["tempo_bpm"] == pytest.approx(120, rel=0.03)
    assert isinstance(two, Track)
    assert "key" not in two.facts
    assert isinstance(three, BadTrack)
    assert four == Track("d")
    assert isinstance(five, Track)
    assert five.facts["tempo_bpm"] == 60.0, "what labels state stays"
