"""Run commands, take medians, write results."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
CLIP = ROOT / "examples" / "audio" / "war-of-freedom.ogg"
COMMAND = Path(sys.executable).parent / "mu-llama"


@dataclass(frozen=True)
class Run:
    """One finished process."""

    seconds: float
    """Wall time."""
    cpu_s: float
    """User and system time."""
    output: str
    """What it printed."""


def run_process(command: Sequence[str | Path], **environment: str) -> Run:
    """Run a command to its end and time it.

    Raises:
        RuntimeError: with what it said, if it fails.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu_s, done.stdout)


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
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    text = json.dumps({"command": f"python -m benchmarks.{name}", **result, "machine": machine}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (path or RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
