"""Whole runs of each phase: they learn, and leave a model that opens; a phase is one row of a table and one YAML."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch

import mu_llama
from mu_llama.checkpoints.load import find_parts
from mu_llama.training import phases
from mu_llama.training.config_file import load_config, parse_config
from mu_llama.training.export import plot_losses
from mu_llama.training.run_folder import RunFolder
from tests.factories.tensors import read
from tests.unit.training.runs import SET_A, as_yaml, losses, run, settings, start, trained


@pytest.mark.parametrize("phase", ["pretrain", "joint", "lora", "finetune"])
def test_a_run_leaves_a_model_that_opens(phase: str, data: Path, home: Path, tmp_path: Path) -> None:
    plot = mock.Mock()
    out = tmp_path / "run"
    result = start(parse_config(settings(data, out, phase=phase)), home, plot=plot)
    assert result.updates == 8
    assert result.best_validation_loss is not None
    listener = mu_llama.load(result.model, dtype="fp32", use_cache=False)
    assert listener.ask(data.parent / "1.wav", "What is it?").model == "tiny"
    card = (result.model / "MODEL_CARD.md").read_text()
    assert "## Training" in card
    assert "best_validation_loss" in card
    assert ("`llama/`" in card) == (result.model / "llama").is_dir()
    assert ("`encoder`" in card) == (result.model / "encoder").is_dir()
    assert len(list((out / "checkpoints").glob("update-*"))) == 2, "keep_last"
    assert plot.call_args == mock.call(out / "loss.png", RunFolder(out).metrics())


def test_losses_are_drawn(whole: Path, tmp_path: Path) -> None:
    plot_losses(tmp_path / "loss.png", RunFolder(whole).metrics())
    assert (tmp_path / "loss.png").stat().st_size > 5000


def test_the_model_learns_what_it_is_shown(data: Path, home: Path, tmp_path: Path) -> None:
    """The overfit check: 13 examples to a loss below 0.1; the joint phase can't sharpen so small a LLaMA's logits."""
    few = data.with_name("few.jsonl")
    few.write_text("".join(data.read_text().splitlines(keepends=True)[:13]))
    changes = ["schedule.steps=60", "optimiser.lr=1e-2", "optimiser.clip_norm=1.0", "batch.size=13"]
    changes += ["batch.accumulate=1", "data.validation_fraction=null", "run.validate_every_steps=null"]
    result = run(few, tmp_path / "run", home, *changes, "run.save_every_steps=1000")
    assert losses(tmp_path / "run")[0] > 3
    assert losses(tmp_path / "run")[-1] < 0.1
    listener = mu_llama.load(result.model, dtype="fp32", use_cache=False)
    assert listener.ask(data.parent / "3.wav", "What is it?").text == "Tone 3, 11."
    assert listener.ask(data.parent / "5.wav", "Describe the audio").text == "Tone 5, 18."


def test_a_phase_is_one_row_and_one_yaml(
    data: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row put into the table is accepted in settings, checked against them, trained and exported."""
    gates = phases.Phase("gates", ("conditioner.gate", "llama.*norm.weight"))
    monkeypatch.setitem(phases.PHASES, gates.name, gates)
    path = as_yaml(tmp_path / "gates.yaml", settings(data, tmp_path / "run", phase="gates"))
    with pytest.raises(mu_llama.ConfigError, match=r"optimiser\.lora_lr: is missing.*phase gates needs one of them"):
        load_config(path, ["optimiser={adapter_lr: 1e-3}"])
    changes = ["schedule={steps: 2}", "run.validate_every_steps=null", "data.validation_fraction=null"]
    result = start(load_config(path, changes), home)
    base = find_parts(SET_A / "checkpoint_finetune.pth", llama=SET_A / "llama", encoder=SET_A / "mert", home=home)
    before = {**base.llama.tensors, **base.adapter, **base.tuning}
    after = trained(tmp_path / "run")
    changed = {name for name, value in after.items() if not torch.equal(value, read(before[name]).float())}
    assert changed == {"conditioner.gate", *(name for name in base.llama.tensors if name.endswith("norm.weight"))}
    assert after.keys() == changed | base.adapter.keys() | base.tuning.keys()
    assert mu_llama.load(result.model, use_cache=False).ask(data.parent / "1.wav", "What is it?").model == "tiny"
