"""A tiny published model (golden set A) behind the facade, and a home folder of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import mu_llama
from mu_llama.inference.listener import Listener

SET_A = Path(__file__).parents[1] / "golden" / "set_a"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MU_LLAMA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def tiny() -> Listener:
    """The finetuned tiny model in float32, without a cache on disk."""
    return mu_llama.load(
        SET_A / "checkpoint_finetune.pth", llama=SET_A / "llama", encoder=SET_A / "mert", dtype="fp32", use_cache=False
    )


@pytest.fixture
def tracks(tmp_path: Path) -> list[Path]:
    """Three different pieces of sound, of different lengths."""
    rng = np.random.default_rng(0)
    paths = []
    for index, seconds in enumerate((1.0, 2.5, 4.0)):
        time = np.arange(int(seconds * 16000)) / 16000
        sound = np.sin(2 * np.pi * 220 * (index + 1) * time) * 0.3 + rng.normal(0, 0.02, time.size)
        paths.append(tmp_path / f"träck {index} 音.wav")
        soundfile.write(paths[-1], sound.astype(np.float32), 16000)
    return paths
