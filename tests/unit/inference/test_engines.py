"""Which engine runs a model, what contradicts it, and that both give the same."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mu_llama
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.torch.engine import TorchEngine
from mu_llama.errors import ConfigError
from mu_llama.inference import engines
from mu_llama.inference.engines import EngineOptions, choose_engine
from mu_llama.inference.open_model import OpenedModel
from tests.factories.llama import SIZES, tiny_parts

SET_A = Path(__file__).parents[2] / "golden" / "set_a"
FINETUNED = SET_A / "checkpoint_finetune.pth"


@pytest.fixture
def published() -> ModelSpec:
    parts = tiny_parts()
    return replace(parts, llama=replace(parts.llama, files=(Path("llama.safetensors"),)))


@pytest.fixture
def small(published: ModelSpec) -> ModelSpec:
    return replace(published, adapter_config=replace(SIZES, num_conditioned_layers=0, num_audio_tokens=5))


@pytest.mark.parametrize(
    ("settings", "of_published", "of_small"),
    [
        ({}, "torch", "onnx"),
        ({"quantize": "int8"}, "onnx", "onnx"),
        ({"quantize": "int4", "device": "cpu"}, "onnx", "onnx"),
        ({"dtype": "bf16"}, "torch", "torch"),
        ({"dtype": "fp32"}, "torch", "torch"),
        ({"device": "cuda"}, "torch", "torch"),
        ({"quantize": "int8", "device": "cuda:1"}, "torch", "torch"),
        ({"device_map": "auto"}, "torch", "torch"),
        ({"provider": "cuda"}, "onnx", "onnx"),
        ({"engine": "onnx"}, "onnx", "onnx"),
        ({"engine": "torch", "quantize": "int8"}, "torch", "torch"),
    ],
)
def test_auto(
    settings: dict[str, Any], of_published: str, of_small: str, published: ModelSpec, small: ModelSpec
) -> None:
    options = EngineOptions(**settings)
    assert (choose_engine(published, options), choose_engine(small, options)) == (of_published, of_small)


def test_auto_on_other_machines(published: ModelSpec, small: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    assert choose_engine(published, EngineOptions(quantize="int8")) == "torch"
    assert choose_engine(published, EngineOptions(quantize="int8", device="cpu")) == "onnx"
    assert choose_engine(small, EngineOptions()) == "onnx"
    for missing in ("torch", "transformers"):
        monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name, missing=missing: name != missing or None)
        assert choose_engine(published, EngineOptions()) == "onnx"
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}
    yarn = replace(published.llama.config, rope_scaling=scaling)
    monkeypatch.undo()
    unknown = replace(published, llama=replace(published.llama, config=yarn))
    assert choose_engine(unknown, EngineOptions(quantize="int8")) == "torch"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"engine": "jax"}, "engine is 'jax'; expected auto, onnx, torch"),
        ({"quantize": "int2"}, "quantize is 'int2'; expected int8 or int4"),
        ({"engine": "onnx", "device": "cuda"}, "--device cuda belongs to the torch engine"),
        ({"engine": "onnx", "device_map": "auto"}, "--device-map belongs to the torch engine"),
        ({"engine": "onnx", "dtype": "bf16"}, "runs in fp32, int8 or int4, not bf16"),
        ({"engine": "onnx", "dtype": "fp32", "quantize": "int8"}, "contradicts --quantize int8"),
        ({"engine": "torch", "provider": "cuda"}, "--provider belongs to the onnx engine"),
    ],
)
def test_contradictions_are_named(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        mu_llama.load("mini", **settings)


def test_a_missing_torch_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"isn't installed; pip install 'mu-llama\[torch\]'"):
        mu_llama.load("mini", engine="torch")


def test_chosen_threads_are_torchs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        for chosen in ("3", "1"):
            monkeypatch.setenv("MU_LLAMA_THREADS", chosen)
            published_listener(engine="torch")
            assert torch.get_num_threads() == int(chosen)
    finally:
        torch.set_num_threads(before)


def test_a_batch_loads_no_model_before_its_first_track_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = published_listener(engine="torch")
    monkeypatch.setattr(
        OpenedModel, "scheduler", property(lambda _: pytest.fail("loaded for a track that can't be read"))
    )
    [failure] = listener.ask_many(["nowhere.wav"], ["What is this?"])
    assert isinstance(failure, mu_llama.Failure)


def published_listener(**settings: Any) -> mu_llama.Listener:
    return mu_llama.load(FINETUNED, llama=SET_A / "llama", encoder=SET_A / "mert", use_cache=False, **settings)


def test_both_engines_give_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MU_LLAMA_HOME", str(tmp_path))
    options = mu_llama.GenerationOptions(max_new_tokens=16)
    questions = ["What is this?", "Is there singing?"]
    in_torch, onnx = (published_listener(engine=engine, dtype="fp32") for engine in ("torch", "onnx"))
    assert isinstance(in_torch.opened.engine, TorchEngine)
    assert isinstance(onnx.opened.engine, OnnxEngine)
    audios = [SET_A / "audio_short.wav", SET_A / "audio_stereo44.wav"]
    for audio in audios:
        one, other = (listener.listen(audio).conditioning for listener in (in_torch, onnx))
        np.testing.assert_allclose(one, other, atol=2e-5, rtol=1e-4)
    answers = [
        [answer.text for answer in listener.ask_many(audios, questions, options=options)]  # type: ignore[union-attr]
        for listener in (in_torch, onnx)
    ]
    assert answers[0] == answers[1]


def test_a_graph_is_built_once_and_again_when_the_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MU_LLAMA_HOME", str(tmp_path / "home"))
    said: list[str] = []

    def engine(**settings: Any) -> object:
        return published_listener(engine="onnx", quantize="int8", report=said.append, **settings).opened.engine

    engine()
    engine()
    assert said == [f"building the int8 graph of {FINETUNED.stem} (once)"] or len(said) == 1
    folders = {path for path in (tmp_path / "home" / "graphs").iterdir() if path.is_dir()}
    assert len(folders) == 1
    other = mu_llama.load(
        SET_A / "checkpoint_finetune_namespace.pth", llama=SET_A / "llama-sharded", encoder=SET_A / "mert",
        use_cache=False, engine="onnx", quantize="int8", report=said.append,
    )  # fmt: skip
    assert isinstance(other.opened.engine, OnnxEngine)
    assert len(said) == 2


def test_asking_mini_imports_neither_torch_nor_transformers() -> None:
    clip = Path(__file__).parents[3] / "examples" / "audio" / "midnight-dance-cello.ogg"
    assert mu_llama.load("mini").opened.engine  # builds its graph, for which onnx is imported
    code = (
        "import sys, mu_llama; listener = mu_llama.load('mini', use_cache=False)\n"
        f"track = listener.listen({str(clip)!r}, duration_s=5.0)\n"
        "print(listener.ask(track, 'Is there singing?').finish_reason, listener.tags(track) != {})\n"
        "chat = listener.chat(track); chat.ask('Are there drums?'); chat.read_ahead()\n"
        "print(*sorted({'torch', 'transformers', 'onnx', 'librosa', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["stop True", ""]
