"""The golden set under test: any folder with the layout that set_a/README.md describes.

Nothing here knows a size of set A. A test asks for its cases by a pattern over the keys of
expected.safetensors, `@pytest.mark.golden_keys(r"mert/(?P<audio>...)/...")`, and runs once a key with the
fixture `golden_key`; a set without such keys shows as a skipped test.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

from mu_llama.audio.waveform import Samples, Waveform
from tests.factories.resample import sinc_resample

RATE_HZ = 24000
CUDA_SLACK, CUDA_TRAINED_SLACK = 3.0, 10.0
"""Factors on tolerances with --device cuda, whose float32 sums run in another order than the reference's.

The first is for MERT's states, the adapter's vectors, logits, losses and gradients; the second for weights after a run,
since AdamW divides a gradient by its own size and so a small one's error too. Everything else (ids, neighbours, norms
of gradients, rates, names) is compared as on a CPU.
"""


class Golden:
    """One folder of golden data."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path = path
        self.device = device
        self.slack, self.trained_slack = (CUDA_SLACK, CUDA_TRAINED_SLACK) if device.type == "cuda" else (1.0, 1.0)
        self._waves: dict[str, Samples] = {}

    @cached_property
    def json(self) -> dict[str, Any]:
        """Contents of expected.json."""
        return json.loads((self.path / "expected.json").read_text(encoding="utf-8"))

    @property
    def config(self) -> dict[str, Any]:
        """The sizes of this set."""
        return self.json["config"]

    @cached_property
    def expected(self) -> dict[str, torch.Tensor]:
        """Every tensor of expected.safetensors."""
        with safe_open(self.path / "expected.safetensors", framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping

    def matches(self, pattern: str) -> list[re.Match[str]]:
        """The keys of expected.safetensors that are this pattern from end to end."""
        found = (re.fullmatch(pattern, key) for key in self.expected)
        return [match for match in found if match]

    def wave(self, audio: str) -> Samples:
        """The 24 kHz mono samples that a name in this set means; `_x<n>` names give the unrepeated wave."""
        if audio not in self._waves:
            self._waves[audio] = self._make_wave(audio)
        return self._waves[audio]

    def window(self, audio: str, index: int) -> Waveform:
        """Window `index` of those that the reference encodes."""
        lengths = self.json["audio"][audio]["window_lengths"]
        start, length = sum(lengths[:index]), lengths[index]
        wave = self.wave(audio)
        if re.search(r"_x\d+$", audio):
            wave = wave[np.arange(start, start + length) % wave.size]
        else:
            wave = wave[start : start + length]
        assert wave.size == length
        return Waveform(wave, RATE_HZ)

    def _make_wave(self, audio: str) -> Samples:
        if silence := re.fullmatch(r"silence(\d+)s", audio):
            return np.zeros(int(silence[1]) * RATE_HZ, dtype=np.float32)
        if edge := re.fullmatch(r"edge_(\d+)_samples", audio):
            return self.wave("short")[3000 : 3000 + int(edge[1])]
        path = self.path / f"audio_{re.sub(r'_x[0-9]+$', '', audio)}.wav"
        if not path.is_file():
            pytest.fail(f"the golden set names the audio {audio!r}, but has no {path.name}")
        channels, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        return sinc_resample(np.ascontiguousarray(channels.T), rate_hz, RATE_HZ).mean(axis=0, dtype=np.float32)


_OPEN: dict[Path, Golden] = {}


def _open_golden(config: pytest.Config) -> Golden:
    path = config.getoption("--golden").resolve()
    if not (path / "expected.json").is_file():
        raise pytest.UsageError(f"--golden {path} has no expected.json; give a folder like tests/golden/set_a")
    return _OPEN.setdefault(path, Golden(path, torch.device(config.getoption("--device"))))


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cuda":
        if not torch.cuda.is_available():
            raise pytest.UsageError("--device cuda: torch sees no CUDA device")
        # TF32 has 10 bits of mantissa; cuDNN's convolutions take it unless they are asked not to.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    config.addinivalue_line(
        "markers", "golden_keys(pattern): run once for each key of expected.safetensors that is this pattern"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden_keys")
    if marker is not None:
        matches = _open_golden(metafunc.config).matches(marker.args[0])
        metafunc.parametrize("golden_key", matches, ids=[match[0] for match in matches])


@pytest.fixture(scope="session")
def golden(pytestconfig: pytest.Config) -> Golden:
    """The golden set that --golden names."""
    return _open_golden(pytestconfig)
