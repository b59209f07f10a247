"""Run commands, take medians, write results."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mu_llama.devices import compute_threads

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
CLIP = ROOT / "examples" / "audio" / "war-of-freedom.ogg"
COMMAND = Path(sys.executable).parent / "mu-llama"


PACKAGES = ("torch", "transformers", "onnxruntime", "xllamacpp")
"""Whose versions a result names."""
# Starts the command from a small process: a child begins with the peak of the process that starts it.
RUN = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
figures = [seconds, usage.ru_utime, usage.ru_stime, usage.ru_maxrss / 1024]
open(sys.argv[1], "w").write(json.dumps(figures))
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


@dataclass(frozen=True)
class Run:
    """One finished process."""

    seconds: float
    """Wall time."""
    user_s: float
    """User time, with that of the processes it waited for."""
    cpu_s: float
    """User and system time."""
    peak_mib: float
    """Peak resident memory of the process, or of the largest that it waited for."""
    output: str
    """What it printed."""


def run_process(command: Sequence[str | Path], **environment: str) -> Run:
    """Run a command to its end and measure it.

    Raises:
        RuntimeError: with what it said, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "figures.json"
        line = [sys.executable, "-S", "-c", RUN, str(noted), *(str(part) for part in command)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
        seconds, user_s, system_s, peak_mib = json.loads(noted.read_text())
    return Run(seconds, user_s, user_s + system_s, peak_mib, done.stdout)


def alternate(count: int, **runs: Callable[[], float]) -> dict[str, list[float]]:
    """Take measurements in turns, so that a busy moment hits all alike; one round before them doesn't count."""
    values: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(count + 1):
        for name, run in runs.items():
            value = run()
            if turn:
                values[name].append(value)
    return values


def medians(values: dict[str, list[float]]) -> dict[str, float]:
    """The middle value of each."""
    return {name: statistics.median(series) for name, series in values.items()}


def write_result(name: str, result: dict[str, Any], *, path: Path | None = None) -> None:
    """Write results/<name>.json (or another path) with the machine it was measured on, and print it."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": compute_threads(),
        **{name: installed for name in PACKAGES if (installed := _version(name))},
    }
    text = json.dumps({"command": f"python -m benchmarks.{name}", **result, "machine": machine}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (path or RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
