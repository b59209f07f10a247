"""A tiny data set, a cache folder and an uninterrupted run that all files of this folder share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from accelerate.state import AcceleratorState

from mu_llama.training.session import TrainingResult
from tests.unit.training.runs import run


@pytest.fixture(autouse=True)
def forget_precision() -> Iterator[None]:
    """Accelerate keeps the precision of a process's first run."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen tracks, two questions each, and a text-only row."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [{"audio": None, "question": "Is this text?", "answer": "It is text."}]
    for index in range(16):
        time_s = np.arange(24000) / 24000
        sound = np.sin(2 * np.pi * 110 * (index + 1) * time_s) * 0.3 + rng.normal(0, 0.01, time_s.size)
        soundfile.write(folder / f"{index}.wav", sound.astype(np.float32), 24000)
        for question in ("What is it?", "Describe the audio"):
            rows.append({"audio": f"{index}.wav", "question": question, "answer": f"Tone {index}, {len(question)}."})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "data.jsonl"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder: each track is encoded once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def whole_result(data: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Of a finished run that nothing interrupted."""
    return run(data, tmp_path_factory.mktemp("whole") / "run", home)


@pytest.fixture(scope="session")
def whole(whole_result: TrainingResult) -> Path:
    """The folder of that run; not to be changed."""
    return whole_result.model.parent
