"""The figures of the engines as tables of docs/experiments/engine.md; one whose result isn't there yet is left out.

Run: python -m benchmarks.engine_page
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, ROOT
from mu_llama.files import write_whole

PAGE = ROOT / "docs" / "experiments" / "engine.md"
_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
FIGURES = {
    "alone_per_s": "one row, tokens/s",
    "batch_per_s": "16 rows, tokens/s",
    "ragged_per_s": "16 ragged rows, tokens/s",
    "ragged_static_per_s": "the same, each run until the longest ends",
    "prompt_ms": "a prompt of 110 tokens, ms",
    "first_token_ms": "first text about a track that was encoded, ms",
    "next_question_ms": "first text of its next question, ms",
}
"""Of `benchmarks.decode`, and what the table calls them."""
WANTED = {
    "alone, to torch": ">= 3",
    "alone, to llama.cpp": ">= 1",
    "alone with one core busy, to quiet": ">= 0.6",
    "16 rows, to torch": ">= 2",
    "16 ragged rows, to waiting for the longest": ">= 2",
    "time of the first token, to torch": "<= 0.7",
}
ASKED = {"seconds": ("wall time, s", 2), "user_s": ("user time, s", 2), "peak_mib": ("peak memory, MiB", 0)}
ASK_WANTED = {("warm", "seconds"): "<= 0.25", ("cold", "seconds"): "<= 0.4", ("warm", "peak_mib"): "<= 0.6"}
COSINES = {"all_logits": "lowest of a prompt", "last_token": "lowest of a last token", "mean_position": "mean"}


def decode(result: Mapping[str, Any]) -> str:
    """Every figure, number of threads and state of the machine by engine."""
    engines = result["engines"]
    rows = []
    for name, label in FIGURES.items():
        for state, counts in result["medians"].items():
            for threads, measured in counts.items():
                values = [measured.get(engine, {}).get(name) for engine in engines]
                if any(value is not None for value in values):
                    rows.append([label, threads, state, *map(_number, values)])
    return _table(["", "threads", "machine", *engines.values()], rows)


def ratios(result: Mapping[str, Any]) -> str:
    """What the default (int8) gains."""
    compared = result["ratios of onnx, int8"]
    threads = list(result["medians"]["quiet"])
    rows = [
        [label, *(_number(by_threads.get(count), 2) for count in threads), WANTED.get(label, "")]
        for label, by_threads in compared.items()
    ]
    return _table(["ratio of onnx, int8", *(f"threads: {count}" for count in threads), "wanted"], rows)


def ask(result: Mapping[str, Any]) -> str:
    """The whole process against another version."""
    rows = []
    for clip in ("warm", "cold"):
        for figure, (label, digits) in ASKED.items():
            one = result[clip][figure]
            values = [_number(one["this"], digits), _number(one["other"], digits), _number(one["ratio"], 2)]
            rows.append([clip, label, *values, ASK_WANTED.get((clip, figure), "")])
    return _table(["clip", "", "this version", "before", "ratio", "wanted"], rows)


def precision(result: Mapping[str, Any]) -> str:
    """How near each engine stays to torch."""
    rows = []
    for engine, measured in result["engines"].items():
        for reference in (name for name in measured if name.startswith("to ")):
            equal = measured["equal answers"].get(f"and {reference.removeprefix('to ')}")
            values = [_number(measured[reference][name], 4) for name in COSINES]
            rows.append([f"{engine} {reference}", *values, _percent(equal), ""])
        rows.append([engine, "", "", "", "", _percent(measured["equal answers"]["alone and in a batch"])])
    headings = ["", *(f"cosine, {label}" for label in COSINES.values()), "equal answers", "equal alone and in a batch"]
    return _table(headings, rows)


def variants(result: Mapping[str, Any]) -> str:
    """What was tried for the graphs."""
    rows = [
        [
            name,
            *(_number(measured["cosine"][figure], 4) for figure in COSINES),
            *(_number(measured[figure]) for figure in ("row_per_s", "rows_per_s", "read_ms", "megabytes", "build_s")),
        ]
        for name, measured in result["variants"].items()
    ]
    headings = [f"cosine, {label}" for label in COSINES.values()]
    headings += ["one row, tokens/s", "16 rows, tokens/s", "reading 110 tokens, ms", "MB", "building, s"]
    return _table(["graph", *headings], rows)


TABLES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "decode": ("decode", decode),
    "ratios": ("decode", ratios),
    "ask": ("ask_versions", ask),
    "precision": ("precision", precision),
    "variants": ("graph_variants", variants),
}
"""A table's name on the page, the result it is made of, and what writes it."""


def with_figures(page: str, results: Path = RESULTS) -> str:
    """Replace what stands between the page's marks by tables of the results that are there.

    Raises:
        KeyError: if the page names a table that doesn't exist.
    """

    def written(place: re.Match[str]) -> str:
        result, write = TABLES[place[2]]
        path = results / f"{result}.json"
        if not path.is_file():
            return f"{place[1]}{place[3]}"
        return f"{place[1]}\n{write(json.loads(path.read_text(encoding='utf-8')))}\n\n{place[3]}"

    return _PLACE.sub(written, page)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None, digits: int | None = None) -> str:
    """A number for people: one digit behind the point below 100; empty for None."""
    if value is None:
        return ""
    return f"{value:.{(1 if value < 100 else 0) if digits is None else digits}f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def main() -> None:
    """Write the tables into the page."""
    write_whole(PAGE, [with_figures(PAGE.read_text(encoding="utf-8"))])


if __name__ == "__main__":
    main()
