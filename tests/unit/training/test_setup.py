"""Errors of training about a model's files name its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu_llama.checkpoints.convert import ConvertOptions
from mu_llama.checkpoints.load import find_parts
from mu_llama.engine.onnx.convert import convert_to_onnx
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.training.config import DataConfig, DatasetEntry, ModelSource, OptimizerConfig, ScheduleConfig, TrainConfig
from mu_llama.training.setup import base_parts, find_llama, with_setting_names

SET_A = Path(__file__).parents[2] / "golden" / "set_a"


def config_of(source: ModelSource) -> TrainConfig:
    data = DataConfig(train=(DatasetEntry(path=Path("a.json")),))
    optimizer, schedule = OptimizerConfig(lr=1e-4), ScheduleConfig(epochs=1)
    return TrainConfig(name="x", phase="joint", model=source, data=data, optimiser=optimizer, schedule=schedule)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("a.pth: needs the LLaMA; add --llama FOLDER", "a.pth: needs the LLaMA; add model.llama FOLDER"),
        ("give this one as --model and leave --encoder out", "give this one as model.base and leave model.encoder out"),
        ("/x/models--llama--7b/--model/a: is damaged", "/x/models--llama--7b/--model/a: is damaged"),
    ],
)
def test_options_become_settings(said: str, expected: str) -> None:
    for kind in (ConfigError, CheckpointError):
        with pytest.raises(kind) as caught, with_setting_names():
            raise kind(said)
        assert str(caught.value) == expected


def test_a_wrong_base_and_llama_are_refused_in_settings(tmp_path: Path) -> None:
    (tmp_path / "mert").mkdir()
    (tmp_path / "mert" / "config.json").write_text('{"model_type": "mert_model", "hidden_size": 8}')
    (tmp_path / "mert" / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    for source, find in (
        (ModelSource(base=str(tmp_path / "mert")), base_parts),
        (ModelSource(base="mini", llama=str(tmp_path / "mert")), find_llama),
    ):
        with pytest.raises((ConfigError, CheckpointError), match=r"model\.encoder") as caught:
            find(config_of(source), home=tmp_path, report=print)
        assert "--" not in str(caught.value)


def test_a_graph_cannot_be_trained(tmp_path: Path) -> None:
    parts = find_parts(SET_A / "checkpoint_finetune.pth", llama=SET_A / "llama", encoder=SET_A / "mert", home=tmp_path)
    convert_to_onnx(parts, tmp_path / "graph", ConvertOptions())
    with pytest.raises(CheckpointError, match="give the model that it was converted from"):
        base_parts(config_of(ModelSource(base=str(tmp_path / "graph"))), home=tmp_path, report=print)
