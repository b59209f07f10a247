"""The commands that train: `mu-llama train`, `python -m mu_llama.training`, and accelerate's launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner

from mu_llama import devices
from mu_llama.cli.main import typer_app
from mu_llama.training import session
from mu_llama.training.__main__ import main
from mu_llama.training.setup import PreparedTracks
from tests.unit.training.runs import as_yaml, environment, settings


def test_accelerates_launcher_starts_it(data: Path, home: Path, tmp_path: Path) -> None:
    """In a process of its own: also that lines tell what is cut, and that libraries say nothing."""
    path = as_yaml(tmp_path / "run.yaml", settings(data, tmp_path / "run"))
    line = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "-m", "mu_llama.training"]
    line += ["--config", str(path), "--set", "schedule.steps=2", "--set", "run.validate_every_steps=2"]
    line += ["--set", "data.max_tokens=60", "--set", "precision.dtype=bf16"]
    done = subprocess.run(line, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    assert "cut at max tokens" in done.stderr
    assert ("bf16 is slow" in done.stderr) == devices.is_cpu_slow_at_bf16()
    assert "memory: " in done.stderr
    assert "update 2/2: loss" in done.stderr
    assert "gemm" not in done.stderr


def test_missing_audio_stops_before_training_unless_it_may_be_skipped(
    data: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows = [row | {"audio": row["audio"] and str(data.parent / row["audio"])} for row in rows]
    rows += [{"audio": f"gone-{n}.wav", "question": "Q?", "answer": "A."} for n in range(3)]
    copied = tmp_path / "data.jsonl"
    copied.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = as_yaml(tmp_path / "run.yaml", settings(copied, tmp_path / "run"))
    monkeypatch.setenv("MU_LLAMA_HOME", str(home))
    monkeypatch.setattr(session, "plot_losses", mock.Mock())
    arguments = ["train", "--config", str(path), "--set", "schedule.steps=2"]
    done = CliRunner().invoke(typer_app, arguments)
    assert done.exit_code == 2
    assert "3 missing audio files" in done.stderr
    assert "gone-2.wav" in done.stderr
    assert not (tmp_path / "run").exists()
    done = CliRunner().invoke(typer_app, [*arguments, "--skip-missing", "--json"])
    assert done.exit_code == 0, done.stderr
    assert "3 missing audio" in done.stderr
    assert json.loads(done.stdout)["updates"] == 2


def test_mistakes_of_a_config_come_all_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = settings(data, tmp_path / "run")
    content["optimizer"] = content.pop("optimiser")
    content["batch"]["sise"] = 3
    path = as_yaml(tmp_path / "bad.yaml", content)
    monkeypatch.setattr(sys, "argv", ["mu_llama.training", "--config", str(path)])
    assert main() == 2
    problems = capsys.readouterr().err
    assert "optimiser" in problems
    assert "batch.sise" in problems
    assert "size" in problems


def test_preparing_says_what_is_left_out(data: Path, home: Path, tmp_path: Path) -> None:
    gone = {"audio": "gone.wav", "question": "Q", "answer": "A"}
    (tmp_path / "gone.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in (gone, gone, gone | {"audio": None}))
    )
    plain = settings(data, tmp_path / "run")
    plain["data"]["train"].append({"path": str(tmp_path / "gone.jsonl")})
    path = as_yaml(tmp_path / "run.yaml", plain)
    with mock.patch.dict("os.environ", environment(home)):
        line = ["train", "--config", str(path), "--prepare", "--skip-missing"]
        done = CliRunner().invoke(typer_app, line)
        assert "are ready; left out: 2 examples whose audio file is missing" in done.stdout, done.output
        counts = json.loads(CliRunner().invoke(typer_app, [*line, "--json"]).stdout)
    assert counts == {"tracks": counts["tracks"], "missing_examples": 2, "unreadable_tracks": 0}
    assert str(PreparedTracks(1, 1, 2)) == (
        "1 track is ready; left out: 1 example whose audio file is missing, 2 tracks that can't be encoded"
    )
