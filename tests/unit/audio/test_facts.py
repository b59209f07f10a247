"""Measured facts on sound whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mu_llama.audio.facts import measure_facts
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
