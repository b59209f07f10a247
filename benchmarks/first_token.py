"""Opening a model, the first word of an answer, and the words after it: one model folder against another.

Run: python -m benchmarks.first_token --model FOLDER [--against FOLDER]
or, against an older version with the code it came with, each in processes of its own:
git worktree add ../old COMMIT && python -m benchmarks.first_token --against-source ../old/src
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import mu_llama
from benchmarks.measure import CLIP, ROOT, alternate, medians, write_result
from mu_llama.engine.sampling import GenerationOptions

QUESTION = "Describe the audio in detail"
RUNS, PROCESSES = 9, 5
OPTIONS = GenerationOptions(max_new_tokens=60)


def timed(model: str) -> dict[str, Callable[[], float]]:
    """What is measured of one model, in seconds."""
    listener = mu_llama.load(model)
    track = listener.listen(CLIP)

    def opening() -> float:
        start = time.perf_counter()
        mu_llama.load(model).ask(track.name, QUESTION, options=GenerationOptions(max_new_tokens=1))
        return time.perf_counter() - start

    def first() -> float:
        start = time.perf_counter()
        next(iter(listener.stream(track, QUESTION, options=OPTIONS)))
        return time.perf_counter() - start

    def each() -> float:
        times = [time.perf_counter() for _ in listener.stream(track, QUESTION, options=OPTIONS)]
        return statistics.median(later - earlier for earlier, later in pairwise(times))

    return {"opening_to_first_token": opening, "first_token": first, "each_token": each}


def alone(source: Path) -> dict[str, float]:
    """Medians of the `mini` of one source folder, in a process that imports mu_llama from there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source.resolve()), str(ROOT)])}
    command = [sys.executable, "-m", "benchmarks.first_token", "--alone"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def against_source(source: Path) -> dict[str, dict[str, float]]:
    """This version and another, in turns."""
    pairs = [(alone(ROOT / "src"), alone(source)) for _ in range(PROCESSES)]
    results = {}
    for name in pairs[0][0]:
        mine, other = (statistics.median(pair[place][name] for pair in pairs) for place in (0, 1))
        results[name] = {"model": round(mine, 4), "against": round(other, 4), "ratio": round(mine / other, 3)}
    return results


def main() -> None:
    """Measure both in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--against", default="mini")
    parser.add_argument("--against-source", type=Path, help="src folder of another version")
    parser.add_argument("--alone", action="store_true", help="print the medians of --model as JSON")
    arguments = parser.parse_args()
    if arguments.alone:
        measured = timed(arguments.model).items()
        print(json.dumps({name: statistics.median(run() for _ in range(RUNS)) for name, run in measured}))
        return
    if arguments.against_source:
        what = "median seconds of a 30 s clip, its features in the cache; each version with its own code"
        write_result(
            "first_token_versions",
            {
                "command": "python -m benchmarks.first_token --against-source FOLDER",
                "what": what,
                **against_source(arguments.against_source),
            },
        )
        return
    results = {}
    mine, other = timed(arguments.model), timed(arguments.against)
    for name in mine:
        values = medians(alternate(RUNS, model=mine[name], against=other[name]))
        results[name] = {**{who: round(value, 4) for who, value in values.items()},
                       "ratio": round(values["model"] / values["against"], 3)}  # fmt: skip
    names = {"model": Path(arguments.model).name, "against": Path(arguments.against).name}
    write_result(
        "first_token", {"what": "median seconds of a 30 s clip, its features in the cache", **names, **results}
    )


if __name__ == "__main__":
    main()
