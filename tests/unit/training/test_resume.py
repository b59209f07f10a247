"""A run that was stopped goes on bit for bit; a folder or checkpoint that isn't this run's is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.training import session
from mu_llama.training.loop import TrainingError
from mu_llama.training.session import TrainingResult
from tests.unit.training.runs import Stop, as_yaml, environment, losses, run, same_weights, settings, trained


def test_a_finished_run_is_left_alone(whole: Path, whole_result: TrainingResult, data: Path, home: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert run(data, whole, home) == whole_result
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == stamps
    with pytest.raises(ConfigError, match=r"optimiser\.lr: 0\.001 before, 0\.002 now"):
        run(data, whole, home, "optimiser.lr=2e-3")


@pytest.mark.parametrize("after", [1, 2, 5, 8])
def test_a_stopped_run_ends_as_if_it_was_not(after: int, whole: Path, data: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(data, tmp_path / "run", home, stop_after=after)
    run(data, tmp_path / "run", home)
    assert losses(tmp_path / "run") == losses(whole)
    assert same_weights(tmp_path / "run", whole)


@pytest.mark.slow
def test_killed_and_started_again(data: Path, home: Path, tmp_path: Path) -> None:
    """A real kill -9 in the middle, through the command."""
    changes = ["--set", "schedule.steps=30", "--set", "run.validate_every_steps=30"]
    line = [sys.executable, "-m", "mu_llama.training", *changes, "--config"]
    whole = as_yaml(tmp_path / "whole.yaml", settings(data, tmp_path / "whole"))
    subprocess.run([*line, str(whole)], env=environment(home), check=True, capture_output=True)
    stopped = as_yaml(tmp_path / "run.yaml", settings(data, tmp_path / "run"))
    process = subprocess.Popen([*line, str(stopped)], env=environment(home), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "checkpoints").glob("update-*4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "model").exists(), "it was to be killed before its end"
    subprocess.run([*line, str(stopped)], env=environment(home), check=True, capture_output=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_full_disk_keeps_the_checkpoint_before(
    whole: Path, data: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stop):
        run(data, tmp_path / "run", home, stop_after=3)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match=r"No space left.*checkpoints before it"):
            run(data, tmp_path / "run", home)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("*update*")] == ["update-00000002"]
    run(data, tmp_path / "run", home)
    assert losses(tmp_path / "run") == losses(whole)


def test_an_early_stop_exports_the_best_also_when_killed_before(
    data: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["optimiser.lr=1.0", "run.validate_every_steps=1", "run.early_stop_patience=2", "schedule.steps=40"]
    whole = run(data, tmp_path / "whole", home, *changes)
    assert whole.updates < 40
    best = json.loads((tmp_path / "whole" / "run.json").read_text())["result"]["best_update"]
    assert best < whole.updates
    saved = load_file(tmp_path / "whole" / "checkpoints" / "best" / "trained.safetensors")
    name = "model.norm.weight"
    assert torch.equal(trained(tmp_path / "whole")[name], saved[f"llama.{name}"])

    def die(*_: object, **__: object) -> None:
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(session, "export_model", die)
        with pytest.raises(Stop):
            run(data, tmp_path / "run", home, *changes)
    assert run(data, tmp_path / "run", home, *changes).updates == whole.updates
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_other_weights_or_data_are_refused(data: Path, home: Path, tmp_path: Path) -> None:
    shutil.copytree(data.parent, tmp_path / "data")
    copied, out = tmp_path / "data" / data.name, tmp_path / "run"
    for phase, folder in (("finetune", out), ("pretrain", tmp_path / "other")):
        with pytest.raises(Stop):
            run(copied, folder, home, "run.save_every_steps=1", phase=phase, stop_after=2)
    content = copied.read_text()
    copied.write_text(content.replace("Tone 3", "Tone three"))
    with pytest.raises(ConfigError, match=r"(?s)other settings or data.*data\..*before"):
        run(copied, out, home, "run.save_every_steps=1")
    copied.write_text(content)
    shutil.rmtree(out / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", out / "checkpoints")
    with pytest.raises(ConfigError, match="another phase or architecture; differs in"):
        run(copied, out, home, "run.save_every_steps=1")


def test_a_start_that_failed_does_not_lock_its_folder(data: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss or gradient of update"):
        run(data, tmp_path / "run", home, "optimiser.lr=1e30", "run.validate_every_steps=8", "run.save_every_steps=8")
    assert run(data, tmp_path / "run", home, "schedule.steps=2").updates == 2


@pytest.mark.parametrize("name", ["model", "metrics.jsonl"])
def test_a_folder_that_is_no_runs_is_left_alone(name: str, data: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("precious")
    with pytest.raises(ConfigError, match=f"is not the folder of a run, but holds {name}"):
        run(data, tmp_path / "mine", home)
    assert (tmp_path / "mine" / name).read_text() == "precious"
