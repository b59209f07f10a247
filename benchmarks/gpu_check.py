"""Check everything that runs on an NVIDIA GPU, in under 8 minutes and without a network; prints one table.

Golden sets, bf16 and NF4 decoding, training steps with and without torch.compile, MERT; of 7B shapes with random
weights, which are made on the GPU. Each part is a process of its own with a limit on its time, so that one that breaks
leaves the others alone. Exit status: 0 if no part failed, 1 if one did, 2 without CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from mu_llama.files import write_whole

LIMITS_S: Mapping[str, int] = {
    "golden": 100,
    "bandwidth": 20,
    "bf16": 50,
    "nf4": 50,
    "train-135m": 30,
    "train-7b": 40,
    "mert": 25,
    "train-135m-compiled": 75,
    "train-7b-compiled": 80,
}
"""A part to its share of the 8 minutes in seconds; what a part leaves of its share, those after it may use."""
_MAX_DETAILS = 40
_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "triton")


@dataclass(frozen=True)
class Outcome:
    """How a part ended."""

    status: Literal["ok", "skipped", "failed"]
    """Skipped parts can't run on this machine."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What was measured; units are in the names."""
    reason: str = ""
    """Why it was skipped or failed, in one line."""
    details: str = ""
    """End of what a part that failed wrote."""
    seconds: float = 0.0
    """Wall time, imports included."""


def run_part(name: str, device: str, *, tiny: bool) -> Outcome:
    """Run a part in this process; nothing is raised."""
    try:
        from benchmarks.gpu_parts import PARTS, prepare
        from benchmarks.gpu_target import PartSkipped, Target
    except Exception as error:  # a library that isn't installed fails the part
        return Outcome("failed", reason=_one_line(error), details=traceback.format_exc())
    try:
        return Outcome("ok", PARTS[name](prepare(Target(device, tiny=tiny))))
    except PartSkipped as error:
        return Outcome("skipped", reason=str(error))
    except Exception as error:  # whatever breaks is what the check is for
        return Outcome("failed", reason=_one_line(error), details=traceback.format_exc())


def run_process(command: Sequence[str], *, limit_s: float, environment: dict[str, str]) -> Outcome:
    """Run a command that writes an outcome as JSON to the file that it is given as its last argument.

    Args:
        command: what is run, in a process group of its own, which is killed at the end.
        limit_s: most seconds it may take.
        environment: of the process.
    """
    with tempfile.TemporaryDirectory(prefix="mu-llama-gpu-check-") as folder:
        log, result = Path(folder) / "log", Path(folder) / "outcome.json"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, str(result)], stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment,
                start_new_session=True,
            )  # fmt: skip
            try:
                status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:  # also what it started: pytest, torch.compile's workers
                _kill_group(process)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if result.is_file():
            outcome = Outcome(**json.loads(result.read_text(encoding="utf-8")))
            written = [*lines, *outcome.details.splitlines()] if outcome.status == "failed" else []
            return Outcome(outcome.status, outcome.figures, outcome.reason, "\n".join(written[-_MAX_DETAILS:]))
        ended = f"stopped after {limit_s:.0f} s, its limit" if status is None else f"ended with status {status}"
        last = next((line for line in reversed(lines) if line.strip()), "")
        return Outcome("failed", reason=f"{ended}; {last}".rstrip("; "), details="\n".join(lines[-_MAX_DETAILS:]))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nothing of it is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _one_line(error: BaseException) -> str:
    """Type and beginning of an error: CUDA's and torch.compile's go on for many lines, the last of which say little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:300]


def outcomes(names: Sequence[str], device: str, *, tiny: bool, in_process: bool) -> Iterator[tuple[str, Outcome]]:
    """Run parts one after the other."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    deadline = time.perf_counter()
    for name in names:
        start = time.perf_counter()
        deadline += LIMITS_S[name]
        if in_process:
            outcome = run_part(name, device, tiny=tiny)
        else:
            options = ["--device", device, *(["--tiny"] if tiny else [])]
            command = [sys.executable, "-m", "benchmarks.gpu_check", *options, "--parts", name, "--outcome"]
            outcome = run_process(command, limit_s=deadline - start, environment=environment)
        seconds = round(time.perf_counter() - start, 1)
        yield name, Outcome(outcome.status, outcome.figures, outcome.reason, outcome.details, seconds)


def table_rows(name: str, outcome: Outcome) -> list[str]:
    """Lines of the table for one part: a line for each figure, or why there are none."""
    figures = [f"{figure} {_short(value)}" for figure, value in outcome.figures.items()] or [outcome.reason]
    heads = [f"{name:<20} {outcome.status:<8} {outcome.seconds:>7.1f}", *[" " * 37] * (len(figures) - 1)]
    return [f"{head}  {figure}" for head, figure in zip(heads, figures, strict=True)]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:.0f}"


def machine(device: str) -> dict[str, str]:
    """Name the device and the libraries."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    versions: dict[str, str] = {}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "not installed"
    return {"device": name, "cuda": str(torch.version.cuda), "python": sys.version.split()[0], **versions}


def why_not(device: str) -> str | None:
    """Say in a sentence why nothing can be checked on a device; None if it can."""
    try:
        import torch
    except ImportError as error:
        return f"torch can't be imported ({error}); install it, or name a Python that has it as PYTHON=..."
    if device == "cuda" and not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} sees no CUDA device; run this on a machine with an NVIDIA GPU, or try it out "
            "with --device cpu --tiny"
        )
    return None


def check(names: Sequence[str], device: str, *, tiny: bool, in_process: bool, json_file: Path | None) -> int:
    """Run parts, print the table as they end, and give the exit status."""
    about = machine(device)
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    print(f"{'part':<20} {'outcome':<8} {'seconds':>7}  figures", flush=True)
    ended: dict[str, Outcome] = {}
    for name, outcome in outcomes(names, device, tiny=tiny, in_process=in_process):
        ended[name] = outcome
        print("\n".join(table_rows(name, outcome)), flush=True)
        if json_file is not None:  # after each part, so that a check that is stopped leaves what it has
            parts = {part: asdict(done) for part, done in ended.items()}
            write_whole(json_file, [json.dumps({"machine": about, "tiny": tiny, "parts": parts}, indent=2), "\n"])
    failed = [name for name, outcome in ended.items() if outcome.status == "failed"]
    for name in failed:
        print(f"\n== {name}\n{ended[name].details}", flush=True)
    counts = {status: sum(done.status == status for done in ended.values()) for status in ("ok", "skipped", "failed")}
    print(", ".join(f"{count} {status}" for status, count in counts.items()), flush=True)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and check, or (with --outcome) run one part in this process."""
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu goes with --tiny")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the check itself")
    parser.add_argument("--parts", nargs="+", choices=tuple(LIMITS_S), default=list(LIMITS_S), help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--in-process", action="store_true", help="for debuggers and profilers; no limits on time")
    parser.add_argument("--outcome", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.device == "cpu" and not given.tiny:
        parser.error("--device cpu needs --tiny: 7B shapes take hours on a CPU")
    if given.outcome is not None:
        outcome = run_part(given.parts[0], given.device, tiny=given.tiny)
        write_whole(given.outcome, [json.dumps(asdict(outcome))])
        return 0
    reason = why_not(given.device)
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    return check(given.parts, given.device, tiny=given.tiny, in_process=given.in_process, json_file=given.json)


if __name__ == "__main__":
    sys.exit(main())
