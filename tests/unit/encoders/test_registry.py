"""An encoder is one folder and one line of ENCODERS: a made-up one works wherever encoders do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mu_llama.audio.waveform import Waveform
from mu_llama.checkpoints.detect import detect
from mu_llama.checkpoints.load import find_parts
from mu_llama.encoders import ENCODERS, build_encoder, encoder_kind
from mu_llama.encoders.protocol import Encoder, EncoderKind
from mu_llama.errors import ConfigError
from mu_llama.inference.pretrained import load

SET_A = Path(__file__).parents[2] / "golden" / "set_a"
ADAPTER_ONLY = "checkpoint_finetune_namespace.pth"


class MadeUpEncoder:
    """Features (5, 24), as the tiny published model was trained on: the window's mean level in every place."""

    name = "made-up"
    fingerprint = "0" * 64
    rate_hz = 8000
    num_layers, width = 5, 24

    def __init__(self, path: str, device: str) -> None:
        self.path, self.device = path, device

    def encode(self, window: Waveform) -> npt.NDArray[np.float32]:
        assert window.rate_hz == self.rate_hz
        return np.full((self.num_layers, self.width), np.abs(window.samples).mean(), np.float32)


def builder() -> Callable[..., Encoder]:
    def build(*, path: str, device: str = "cpu") -> Encoder:
        return MadeUpEncoder(path, device)

    return build


def recognise(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "made_up"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = EncoderKind(
        "made-up", builder, title="Made-Up", recognise=recognise, weight_prefixes=("made_up.",), find_folder=Path
    )
    monkeypatch.setitem(ENCODERS, kind.name, kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An encoder's folder, as transformers lays folders out."""
    path = tmp_path / "encoder"
    path.mkdir()
    config = {"model_type": "made_up", "num_hidden_layers": 4, "hidden_size": 24}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(SET_A / "mert_variant_postnorm" / "model.safetensors", path)
    return path


def test_it_is_built_with_the_models_device() -> None:
    encoder = build_encoder({"kind": "made-up", "path": "x"}, device="meta")
    assert isinstance(encoder, MadeUpEncoder)
    assert (encoder.path, encoder.device) == ("x", "meta")
    assert build_encoder({"kind": "musicnn"}, device="meta").name == "musicnn"  # has no choice of a device
    with pytest.raises(ConfigError, match="expected one of mert, musicnn, made-up"):
        encoder_kind({"kind": "other"})


def test_its_folder_is_recognised(folder: Path) -> None:
    detection = detect(folder)
    assert (detection.kind, detection.note) == ("Made-Up", "4 layers of width 24, weights in 1 file")
    assert detection.holds == {"encoder"}


def test_a_model_folder_with_it_loads_and_answers(folder: Path, tmp_path: Path) -> None:
    parts = find_parts(SET_A / "checkpoint_finetune.pth", llama=SET_A / "llama", encoder=folder, home=tmp_path)
    assert parts.encoder.spec == {"kind": "made-up", "path": str(folder)}
    listener = load(SET_A / ADAPTER_ONLY, llama=SET_A / "llama", encoder=folder, dtype="fp32", use_cache=False)
    target = tmp_path / "model"
    listener.save_pretrained(target)
    assert json.loads((target / "config.json").read_text())["encoder"] == {"kind": "made-up", "path": "encoder"}
    assert sorted(path.name for path in (target / "encoder").iterdir()) == ["config.json", "model.safetensors"]

    again = load(target, dtype="fp32", use_cache=False)
    sound = Waveform(np.sin(np.arange(16000, dtype=np.float32)), 16000)
    assert again.extractor.encoder.name == "made-up"
    assert again.ask(sound, "What is it?").text == listener.ask(sound, "What is it?").text
