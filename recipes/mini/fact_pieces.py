"""Render whole pieces with known tempo and key, for benchmarks/facts.py: 100 bands, 80 tunes and 20 chorales.

Recordings of two bands, with the tempo of their note charts, are added as the group `real`.

Run in the data environment after the plans are made: python -m recipes.mini.fact_pieces --work DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from recipes.mini.notes import read_midi
from recipes.mini.plans import RATE_HZ, default_work_dir, is_again, read_plans, seeded, write_jsonl
from recipes.mini.recordings import recordings
from recipes.mini.render import Renderer

AMOUNTS = {"A": 100, "C": 80, "B": 20}
LENGTH_S = 30.0


def render_pieces(work_dir: Path) -> None:
    """Write `pieces/*.flac` and `pieces.jsonl` with id, path, tempo_bpm, key and mode (null where unknown)."""
    renderer, rows = Renderer(work_dir), []
    for group, count in AMOUNTS.items():
        plans = [p for p in read_plans(work_dir, group) if p.labels.get("tempo_bpm") and not is_again(p.id)]
        plans = [p for p in plans if group != "B" or p.labels.get("key")]
        for plan in seeded("pieces", group).sample(plans, count):
            notes = read_midi(work_dir / plan.source)
            assert plan.soundfont is not None
            sound = renderer.player(plan.soundfont).play(notes, notes[0].start_s, LENGTH_S)
            path = Path("pieces") / f"{plan.id}.flac"
            (work_dir / path).parent.mkdir(exist_ok=True)
            soundfile.write(work_dir / path, sound * (0.89 / max(1e-6, float(np.abs(sound).max()))), RATE_HZ)
            labels = {name: plan.labels.get(name) for name in ("tempo_bpm", "meter", "key", "mode")}
            rows.append({"id": plan.id, "path": path.as_posix(), "group": group, **labels})
    rows += _real(work_dir)
    write_jsonl(work_dir / "pieces.jsonl", rows)
    print(f"{len(rows)} pieces -> {work_dir / 'pieces.jsonl'}")


def _real(work_dir: Path) -> Iterator[dict[str, Any]]:
    known = {"meter": None, "key": None, "mode": None}
    for track in recordings(work_dir):
        tempo = track.labels.get("tempo_bpm")
        if tempo:
            path = track.path.relative_to(work_dir).as_posix()
            yield {"id": track.work, "path": path, "group": "real", "tempo_bpm": tempo, **known}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    render_pieces(parser.parse_args().work)
