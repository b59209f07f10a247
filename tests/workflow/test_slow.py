"""What takes minutes: a fresh install, a kill in the middle, two hours of sound. Run by `make check-slow`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.engine_page import FIGURES
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.embedded import SMOLLM2, converted_folder

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "examples" / "audio" / "midnight-dance-cello.ogg"
ASK = [str(Path(sys.executable).parent / "mu-llama"), "ask", str(CLIP), "-q", "What instrument is playing?", "--json"]
REAL_HOME = home_folder()

pytestmark = pytest.mark.slow


def test_a_fresh_clone_answers_and_then_starts_at_once(tmp_path: Path) -> None:
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("MU_LLAMA_HOME", None)
    command = ["make", "ask", f"AUDIO=examples/audio/{CLIP.name}", "QUESTION=What instrument is playing?"]
    answers, seconds = [], []
    for _ in range(2):
        start = time.monotonic()
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=True)
        answers.append(done.stdout)
        seconds.append(time.monotonic() - start)
    assert "cello" in answers[0].lower()
    assert answers[0] == answers[1]
    assert seconds[1] < 30
    packages = {path.name.split("-")[0] for path in (clone / ".venv").rglob("*.dist-info")}
    assert not any(name.startswith("nvidia") for name in packages), "a CUDA build of torch came in"


def test_a_kill_at_any_moment_of_the_first_start_does_no_harm(tmp_path: Path) -> None:
    environment = {**os.environ, "MU_LLAMA_HOME": str(tmp_path)}
    for delay_s in (4.0, 7.0, 9.0, 11.0):
        process = subprocess.Popen(ASK, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(delay_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(ASK, env=environment, capture_output=True, text=True, check=True)
    assert "cello" in json.loads(done.stdout)["answer"].lower()
    folder = converted_folder(SMOLLM2, tmp_path)
    assert (folder / "config.json").is_file()


def test_two_hours_take_little_more_memory_than_half_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MU_LLAMA_HOME", str(REAL_HOME))
    short, long = tmp_path / "short.flac", tmp_path / "long.flac"
    memory.write_long(short, "FLAC", 30)
    memory.write_long(long, "FLAC", 2 * 3600)
    assert memory.peak_mib(long) - memory.peak_mib(short) < 300


def test_a_new_environment_gets_a_working_package(tmp_path: Path) -> None:
    """`pip install .` without make: the wheel holds its weights and runs outside the checkout."""
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = wheels.glob("mu_llama-*.whl")
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)],
        check=True,
    )
    code = "import mu_llama; print(mu_llama.__file__); from mu_llama.cli.main import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", code, *ASK[1:]],
        env={**os.environ, "PYTHONPATH": str(target), "MU_LLAMA_HOME": str(REAL_HOME)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(target))
    assert "cello" in done.stdout.lower()


def test_the_benchmark_of_the_engines_measures_each_figure(tmp_path: Path) -> None:
    small = ["--engines", "torch", "onnx_int8", "--threads", "1", "--repeats", "1", "--tokens", "4", "--rows", "2"]
    command = [sys.executable, "-m", "benchmarks.decode", *small, "--busy", "--json", str(tmp_path / "decode.json")]
    environment = {**os.environ, "MU_LLAMA_HOME": str(REAL_HOME)}
    subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
    result = json.loads((tmp_path / "decode.json").read_text())
    for engine in ("torch", "onnx_int8"):
        quiet, busy = (result["medians"][state]["1"][engine] for state in ("quiet", "busy"))
        assert set(busy) < set(quiet) == set(FIGURES)
        assert all(value > 0 for value in quiet.values())
    assert result["ratios of onnx, int8"]["alone, to torch"]["1"] > 0
