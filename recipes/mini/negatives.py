"""Group N: no music: real and synthetic speech, noises, hums."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import soxr

from recipes.mini.plans import (
    CLIP_S,
    RATE_HZ,
    Labels,
    Plan,
    Split,
    default_work_dir,
    made_of,
    scaled,
    seeded,
    write_plans,
)

AMOUNTS: dict[Split, tuple[int, int]] = {"train": (200, 140), "val": (16, 12), "test": (50, 40)}
"""Clips wanted: speech, noise."""
_SPOKEN: dict[Split, tuple[str, ...]] = {
    "train": ("en-us", "en-gb", "en-us+f3", "en-gb+m3", "de", "fr", "es", "it", "ru", "en-gb-scotland+f2", "pl+f4"),
    "val": ("nl+f1", "en+m7"),
    "test": ("pt+f2", "sv", "en-gb-x-rp+f5", "fi+m4", "tr+m1"),
}
"""Voices of espeak-ng; each is in one split only."""
_PARTS: tuple[Split, ...] = ("test", "val", "train", "train", "train")
_NUM_RECORDINGS = {"train": 40, "val": 4, "test": 14}
_TEXT = """
    the weather tomorrow will be mostly cloudy with some rain in the north please leave your message after the tone
    and we will call you back our next meeting takes place on Monday at nine she opened the door and looked at the
    empty street for a while nobody said a word then he asked whether the train to the coast had already left water
    boils at one hundred degrees remember to buy bread milk and seven apples the committee has not decided yet
"""
_WORDS = tuple(_TEXT.split())
_LICENCE_SPOKEN = "spoken by espeak-ng (GPL-3+)"
_LICENCE_RECORDED = "LGPL-2.1 (codec2)"


def _speak(work_dir: Path, voice: str, rng: Random, out: Path) -> None:
    """Have espeak-ng say random words for about 15 s."""
    root = (work_dir / "packages/espeak-ng").resolve()
    libraries = sorted({str(p.parent) for p in root.rglob("*.so*")})
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
    data = next(path for path in root.rglob("espeak-ng-data") if (path / "phontab").exists())
    words = " ".join(rng.choice(_WORDS) + (". " if rng.random() < 0.1 else "") for _ in range(60))
    speed, pitch = str(rng.randint(110, 200)), str(rng.randint(25, 75))
    command = [str(root / "usr/bin/espeak-ng"), "--path", str(data.parent), "-v", voice, "-s", speed, "-p", pitch,
               "-w", str(out), words]  # fmt: skip
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)


def _recordings(work_dir: Path) -> list[tuple[str, np.ndarray]]:
    """Codec2's speech at 16 kHz by speaker, most of it one sentence long."""
    folder = work_dir / "packages/codec2-examples/usr/share/codec2"
    skipped = ("sine", "testframes", "test_", "700d", "out", "in8")
    paths = [p for p in sorted(folder.glob("raw/*.raw")) if not p.stem.startswith(skipped)]
    speech = [np.fromfile(path, np.int16).astype(np.float32) / 32768 for path in paths]
    resampled = [np.asarray(soxr.resample(sound, 8000, RATE_HZ), np.float32) for sound in speech]
    # The same speakers and sentences come in several files: what begins alike stays together.
    return list(zip([re.match(r"[a-z]+", path.stem)[0] for path in paths], resampled, strict=True))  # type: ignore[index]


def _recorded(recordings: list[tuple[str, np.ndarray]], split: Split, rng: Random) -> np.ndarray:
    """Sentences one after the other; each speaker is in one split."""
    speakers = sorted({speaker for speaker, _ in recordings})
    part = {speaker: _PARTS[k % len(_PARTS)] for k, speaker in enumerate(speakers)}
    of_split = [sound for speaker, sound in recordings if part[speaker] == split]
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < CLIP_S * RATE_HZ:
        sound = rng.choice(of_split)
        at = rng.randrange(max(1, len(sound) - 4 * RATE_HZ))
        parts += [sound[at : at + 6 * RATE_HZ], np.zeros(rng.randrange(RATE_HZ), np.float32)]
    return np.concatenate(parts)


def make_noise(rng: Random) -> np.ndarray:
    """Noise of a random colour, sometimes with a hum, clicks or swelling like wind; float32 (S,) at 16 kHz."""
    numbers, size = np.random.default_rng(rng.getrandbits(64)), round(CLIP_S * RATE_HZ)
    spectrum = np.fft.rfft(numbers.standard_normal(size))
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / RATE_HZ), 20.0)
    low, high = rng.choice([(20, 8000), (20, 1000), (300, 3400), (2000, 8000), (20, 8000)])
    spectrum *= frequency ** -rng.uniform(0, 1.1) * ((frequency >= low) & (frequency <= high))
    noise = np.fft.irfft(spectrum, size)
    noise /= np.abs(noise).max()
    seconds = np.arange(size) / RATE_HZ
    if rng.random() < 0.3:
        noise *= 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * seconds + rng.uniform(0, 6))
    if rng.random() < 0.25:
        hum = sum(np.sin(2 * np.pi * rng.choice((50, 60)) * k * seconds) / k for k in (1, 2, 3))
        noise = rng.uniform(0.05, 1) * noise + 0.4 * hum
    if rng.random() < 0.2:
        clicks = numbers.random(size) < rng.uniform(1, 20) / RATE_HZ
        noise = 0.3 * noise + np.convolve(clicks * numbers.uniform(-1, 1, size), np.exp(-np.arange(200) / 30))[:size]
    return np.asarray(noise / np.abs(noise).max() * rng.uniform(0.05, 0.9), np.float32)


def make_plans(work_dir: Path) -> None:
    """Write the sounds as FLAC and a plan for each."""
    recordings, plans = _recordings(work_dir), list[Plan]()
    (work_dir / "negatives").mkdir(exist_ok=True)
    for split, (num_speech, num_noise) in made_of(AMOUNTS):
        for number in range(scaled(num_speech) + scaled(num_noise)):
            is_speech = number < scaled(num_speech)
            clip_id = f"N-{split}-{'speech' if is_speech else 'noise'}-{number:04d}"
            rng, path = seeded("negative", clip_id), Path("negatives") / f"{clip_id}.flac"
            recorded = is_speech and number < scaled(_NUM_RECORDINGS[split])
            if recorded:
                soundfile.write(work_dir / path, _recorded(recordings, split, rng), RATE_HZ)
            elif is_speech:
                spoken = work_dir / "negatives" / f"{clip_id}.wav"
                _speak(work_dir, rng.choice(_SPOKEN[split]), rng, spoken)
                soundfile.write(work_dir / path, *soundfile.read(spoken))
                spoken.unlink()
            else:
                soundfile.write(work_dir / path, make_noise(rng), RATE_HZ)
            labels: Labels = {"sound": "speech" if is_speech else "noise", "vocals": False, "drums": False}
            licence = _LICENCE_RECORDED if recorded else _LICENCE_SPOKEN if is_speech else "none: made here"
            plans.append(Plan(clip_id, "N", clip_id, split, path.as_posix(), licence, None, 0.0, labels))
    write_plans(work_dir, "N", plans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    make_plans(parser.parse_args().work)
