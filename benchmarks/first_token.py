"""Opening a model, the first word of an answer, and the words after it: one model folder against another.

Run: python -m benchmarks.first_token --model FOLDER [--against FOLDER]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import mu_llama
from benchmarks.measure import CLIP, alternate, medians, write_result
from mu_llama.generation import GenerationOptions

QUESTION = "Describe the audio in detail"
RUNS = 9
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
        start, seconds = time.perf_counter(), first()
        answer = listener.ask(track, QUESTION, options=OPTIONS)
        return (time.perf_counter() - start - 2 * seconds) / max(1, answer.num_tokens - 1)

    return {"opening_to_first_token": opening, "first_token": first, "each_token": each}


def main() -> None:
    """Measure both in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--against", default="mini")
    arguments = parser.parse_args()
    found = {}
    mine, other = timed(arguments.model), timed(arguments.against)
    for name in mine:
        values = medians(alternate(RUNS, model=mine[name], against=other[name]))
        found[name] = {**{who: round(value, 4) for who, value in values.items()},
                       "ratio": round(values["model"] / values["against"], 3)}  # fmt: skip
    names = {"model": Path(arguments.model).name, "against": Path(arguments.against).name}
    write_result("first_token", {"what": "median seconds of a 30 s clip, its features in the cache", **names, **found})


if __name__ == "__main__":
    main()
