"""The check of a GPU works as a program: on a CPU with tiny shapes every part runs, and what breaks is reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from benchmarks import gpu_check
from benchmarks.gpu_check import LIMITS_S, main, run_part, run_process
from benchmarks.gpu_parts import PARTS

ROOT = Path(__file__).parents[1]
TINY = ["--device", "cpu", "--tiny"]
QUICK = ["bandwidth", "bf16", "nf4", "train-135m", "train-7b", "mert"]
"""All but the golden tests and torch.compile, which take 10 seconds and more."""


@pytest.fixture(autouse=True)
def one_dtype_a_process() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def outcome_of(table: str, part: str) -> str:
    return next(line.split()[1] for line in table.splitlines() if line.split()[:1] == [part])


def test_limits_are_of_these_parts_and_under_eight_minutes() -> None:
    assert list(LIMITS_S) == list(PARTS)
    assert sum(LIMITS_S.values()) < 8 * 60


def test_quick_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "check.json"
    assert main([*TINY, "--in-process", "--json", str(path), "--parts", *QUICK]) == 0
    table = capsys.readouterr().out
    parts = json.loads(path.read_text())["parts"]
    assert list(parts) == QUICK
    assert {name: outcome_of(table, name) for name in QUICK} == {name: part["status"] for name, part in parts.items()}
    assert all(part["status"] == "ok" or (name == "nf4" and part["reason"]) for name, part in parts.items())
    assert parts["bf16"]["figures"]["rows_16_tokens_per_s"] > 0
    assert parts["train-7b"]["figures"]["step_s"] > 0


@pytest.mark.slow
def test_whole_script(tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    done = subprocess.run(
        [ROOT / "scripts" / "gpu_check.sh", *TINY, "--json", path],
        env={**os.environ, "PYTHON": sys.executable}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(json.loads(path.read_text())["parts"]) == list(PARTS)
    assert {outcome_of(done.stdout, name) for name in PARTS} <= {"ok", "skipped"}


def test_nf4_without_bitsandbytes_is_skipped_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    outcome = run_part("nf4", "cpu", tiny=True)
    assert outcome.status == "skipped"
    assert outcome.reason.startswith("NF4 needs bitsandbytes")


def test_a_broken_part_is_reported_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(target: object) -> dict[str, float]:
        raise RuntimeError("CUDA error: misaligned address\nSearch for it\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("benchmarks.gpu_parts.PARTS", {**PARTS, "mert": broken})
    assert main([*TINY, "--in-process", "--parts", "mert", "bandwidth"]) == 1
    table = capsys.readouterr().out
    assert (outcome_of(table, "mert"), outcome_of(table, "bandwidth")) == ("failed", "ok")
    assert "RuntimeError: CUDA error: misaligned address" in table
    assert "Traceback" in table
    assert table.endswith("1 ok, 0 skipped, 1 failed\n")


def test_a_process_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    child = f"import time, pathlib; time.sleep(2); pathlib.Path({str(tmp_path / 'late')!r}).touch()"
    code = f"import subprocess, sys; print('began', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    outcome = run_process([sys.executable, "-c", code], limit_s=0.7, environment=dict(os.environ))
    assert (outcome.status, outcome.reason) == ("failed", "stopped after 1 s, its limit; began")
    time.sleep(2)
    assert not (tmp_path / "late").exists()


def test_a_process_that_dies_is_named() -> None:
    code = "import os, sys; print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    outcome = run_process([sys.executable, "-c", code], limit_s=20, environment=dict(os.environ))
    assert (outcome.status, outcome.reason) == ("failed", "ended with status -9; last words")


def test_time_that_a_part_leaves_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def run(command: object, *, limit_s: float, environment: object) -> gpu_check.Outcome:
        limits.append(limit_s)
        return gpu_check.Outcome("ok")

    monkeypatch.setattr(gpu_check, "run_process", run)
    list(gpu_check.outcomes(["golden", "mert"], "cpu", tiny=True, in_process=False))
    assert limits == pytest.approx([LIMITS_S["golden"], LIMITS_S["golden"] + LIMITS_S["mert"]], abs=1)


def test_without_cuda_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert len(streams.err.splitlines()) == 1
    assert "sees no CUDA device" in streams.err
