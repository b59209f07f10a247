"""Score the measured facts against pieces whose tempo and key are known.

The rows of `pieces.jsonl` (recipes/mini/fact_pieces.py writes one) are `path`, `tempo_bpm`, `key` and `mode`; null is
not scored. Run: python -m benchmarks.facts work/mini/pieces.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import write_result
from mu_llama.audio.facts import Fact, Facts, measure_facts
from mu_llama.text.fact_prompts import SURE_FROM

_TOLERANCE = 0.05
_NONE = Fact("none", 0.0, "none found")
"""Stands for a fact that isn't there: a piece with a tempo and a key has missed it."""


def tempo_fits(value: float, truth: float) -> bool:
    """Whether a tempo is within 5 % of the truth."""
    return abs(value - truth) <= _TOLERANCE * truth


def score(rows: Sequence[dict[str, Any]], measured: Sequence[Facts]) -> dict[str, Any]:
    """Shares in percent, of all and of the confident; a value that isn't there is not right."""
    tempi = [(r, f.tempo_bpm or _NONE) for r, f in zip(rows, measured, strict=True) if r["tempo_bpm"]]
    keys = [(r, f.key or _NONE) for r, f in zip(rows, measured, strict=True) if r["key"]]
    octave = [any(tempo_fits(v, r["tempo_bpm"]) for v in (_number(f), *f.alternatives)) for r, f in tempi]
    tonic = [str(f.value).rsplit(" ", 1)[0] == r["key"] for r, f in keys]
    mode_known = [
        (r, f) for (r, f), right in zip(keys, tonic, strict=True) if right and r["mode"] in ("major", "minor")
    ]
    mode = [str(f.value).endswith(r["mode"]) for r, f in mode_known]
    sure_tempo = [ok for ok, (_, f) in zip(octave, tempi, strict=True) if f.confidence >= SURE_FROM]
    exact = [tempo_fits(_number(f), r["tempo_bpm"]) for r, f in tempi]
    sure_exact = [ok for ok, (_, f) in zip(exact, tempi, strict=True) if f.confidence >= SURE_FROM]
    whole = [
        ok and r["mode"] in (None, str(f.value).rsplit(" ", 1)[1])
        for ok, (r, f) in zip(tonic, keys, strict=True)
        if f.confidence >= SURE_FROM and r["mode"] in ("major", "minor", None)
    ]
    sure_key = [ok for ok, (_, f) in zip(tonic, keys, strict=True) if f.confidence >= SURE_FROM]
    return {
        "tempo_or_octave": _share(octave),
        "tempo_exact": _share(exact),
        "tonic": _share(tonic),
        "mode_of_right_tonic": _share(mode),
        "sure_tempo_right": _share(sure_tempo),
        "sure_tempo_exact": _share(sure_exact),
        "sure_tempo_is": f"{len(sure_tempo)} of {len(tempi)}",
        "sure_tonic_right": _share(sure_key),
        "sure_tonic_and_mode_right": _share(whole),
        "sure_tonic_is": f"{len(sure_key)} of {len(keys)}",
    }


def _number(fact: Fact) -> float:
    return 0.0 if fact is _NONE else float(fact.value)


def _share(right: Sequence[bool]) -> float | None:
    return round(100 * sum(right) / len(right), 1) if right else None


def run(pieces: Path, *, progress: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Measure and score all pieces, and each group apart."""
    rows = [json.loads(line) for line in pieces.read_text().splitlines()]
    measured = []
    for number, row in enumerate(rows, start=1):
        measured.append(measure_facts(pieces.parent / row["path"]))
        progress(number)
    groups = {row.get("group", "all") for row in rows}
    pairs = list(zip(rows, measured, strict=True))
    each = {}
    for group in sorted(groups):
        group_pairs = [(row, facts) for row, facts in pairs if row.get("group", "all") == group]
        each[group] = score([row for row, _ in group_pairs], [facts for _, facts in group_pairs])
    return {"pieces": len(rows), "all": score(rows, measured), "groups": each}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pieces", type=Path)
    arguments = parser.parse_args()
    write_result("facts", run(arguments.pieces))
