"""Runs with options: what is refused, NF4 base, live encoding, trackers, torch.compile; and a loss of NaN."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import mu_llama
from mu_llama.checkpoints.load import find_parts, read_llama
from mu_llama.checkpoints.spec import EncoderSpec, ModelSpec
from mu_llama.errors import ConfigError
from mu_llama.model.config import AdapterConfig
from mu_llama.text.prompts import ALPACA
from mu_llama.training import collate
from mu_llama.training.config_file import parse_config
from mu_llama.training.initialization import fresh_adapter
from mu_llama.training.loop import TrainingError
from mu_llama.training.phases import JOINT, PRETRAIN
from mu_llama.training.trainable import build_trainable
from tests.unit.training.runs import SET_A, Stop, losses, run, settings, start, trained


def test_a_loss_that_is_no_number_stops_with_the_ids(
    data: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collate, "answer_loss", lambda model, batch: torch.tensor(torch.nan, requires_grad=True))
    with pytest.raises(TrainingError, match="the loss or gradient of update 1 is nan"):
        run(data, tmp_path / "run", home)
    written = json.loads((tmp_path / "run" / "not-finite.jsonl").read_text())
    assert len(written["ids"]) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["schedule={epochs: 2}", "batch.accumulate=32"], "too few for an update of 32 x 2 rows"),
        (["schedule={steps: 6, split_epoch: 50}"], "too few for an update"),
        (["precision.dtype=fp16"], "fp16, which needs a GPU"),
        (["run.trackers=[comet_ml]"], "comet_ml, which isn't installed; run: pip install comet_ml"),
        (["optimiser={base_lr: 1e-4}", "schedule.min_lr=1e-3"], "expected at most the peak rate"),
        (["batch.max_tokens=200", "batch.bucketed=false"], "fills batches by length only with batch.bucketed"),
        (["model.encoder={kind: [mert]}"], "expected one of"),
    ],
)
def test_what_can_not_work_is_said_in_one_line(
    changes: list[str], message: str, data: Path, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(data, tmp_path / "run", home, *changes)
    assert not (tmp_path / "run" / "model").exists()


@pytest.fixture(scope="module")
def wider_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA of the golden vocabulary whose widths 4-bit kernels take."""
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=480, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copy(SET_A / "llama" / "tokenizer.model", folder)
    return folder


def test_a_frozen_llama_in_four_bits(wider_llama: Path, data: Path, home: Path, tmp_path: Path) -> None:
    """QLoRA: the base is quantized, LoRA and adapter learn, and what is exported is not quantized."""
    content = settings(data, tmp_path / "run", phase="joint")
    content["model"] = {"llama": str(wider_llama), "encoder": content["model"]["encoder"]}
    content["model"]["fresh"] = {"num_conditioned_layers": 2, "input_scaling": "standardise"}
    changes = ["precision.nf4_base=true", "precision.dtype=bf16", "schedule.steps=40", "optimiser.lr=1e-2"]
    changes += ["batch.accumulate=1", "batch.size=4", "run.save_every_steps=40", "run.validate_every_steps=40"]
    result = start(parse_config(content, changes), home)
    per_update = losses(tmp_path / "run")
    assert np.mean(per_update[-5:]) < np.mean(per_update[:3]) - 0.5
    assert trained(tmp_path / "run")["model.layers.0.mlp.up_proj.lora_B.weight"].abs().max() > 0.01
    assert {value.dtype for value in trained(tmp_path / "run").values()} == {torch.float32}
    assert mu_llama.load(result.model, use_cache=False).ask(data.parent / "1.wav", "What is it?").num_tokens > 0


def test_the_base_really_is_quantized(wider_llama: Path) -> None:
    llama = read_llama(wider_llama)
    sizes = AdapterConfig(5, 24, 64, num_conditioned_layers=2, num_heads=4, bridge_width=64)
    adapter = fresh_adapter(sizes, seed=0)
    encoder = EncoderSpec({"kind": "mert"})
    parts = ModelSpec("x", llama, {}, sizes, adapter, ALPACA, encoder, source="x")
    for phase in (JOINT, PRETRAIN):
        model = build_trainable(parts, phase=phase, dtype=torch.bfloat16, nf4_base=True)
        assert {type(projection).__name__ for projection in model.value_projections()} == {"Linear4bit"}
        assert all("base_layer" not in name for name, value in model.named_parameters() if value.requires_grad)
    tiny = find_parts(
        SET_A / "checkpoint_pretrain.pth", llama=SET_A / "llama", encoder=SET_A / "mert", home=wider_llama
    )
    with pytest.raises(ConfigError, match="nf4_base finds no frozen linear"):
        build_trainable(tiny, phase=JOINT, dtype=torch.bfloat16, nf4_base=True)


def test_trackers_and_activation_checkpointing(data: Path, home: Path, tmp_path: Path) -> None:
    changes = ["run.trackers=[tensorboard]", "precision.activation_checkpointing=true", "precision.dtype=bf16"]
    run(data, tmp_path / "run", home, *changes, "schedule.steps=2", "run.validate_every_steps=2")
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_tracks_can_be_encoded_anew_and_augmented_each_time(data: Path, home: Path, tmp_path: Path) -> None:
    """Live encoding without augmentation equals the table; with it, it doesn't, and a stopped run still ends equal."""
    changes = ["schedule.steps=3", "run.validate_every_steps=3", "run.save_every_steps=1", "batch.accumulate=1"]
    run(data, tmp_path / "table", home, *changes, phase="pretrain")
    run(data, tmp_path / "live", home, *changes, "data.encode=live", phase="pretrain")
    np.testing.assert_allclose(losses(tmp_path / "live"), losses(tmp_path / "table"), atol=1e-5)
    changes += ["data.encode=live", "data.augment=[level, equaliser, noise, phone]"]
    run(data, tmp_path / "augmented", home, *changes, phase="pretrain")
    assert np.abs(np.subtract(losses(tmp_path / "augmented"), losses(tmp_path / "table"))).max() > 1e-4
    with pytest.raises(Stop):
        run(data, tmp_path / "again", home, *changes, phase="pretrain", stop_after=2)
    run(data, tmp_path / "again", home, *changes, phase="pretrain")
    assert losses(tmp_path / "again") == losses(tmp_path / "augmented")


@pytest.mark.slow
def test_compiled_equals_plain(data: Path, home: Path, tmp_path: Path) -> None:
    changes = ["schedule.steps=3", "run.validate_every_steps=3"]
    run(data, tmp_path / "plain", home, *changes)
    result = run(data, tmp_path / "compiled", home, *changes, "precision.compile=true")
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), atol=1e-4)
    assert mu_llama.load(result.model, use_cache=False).ask(data.parent / "1.wav", "What is it?").num_tokens > 0
