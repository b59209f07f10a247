"""MusicQA: requests in flight against a slow server, the template writer, and the scan of MusicCaps.

The server answers after one second, from a process of its own; CPU is that of the build. The csv is the real one where
`--csv` names it, else one of as many made-up rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import COMMAND, run_process, write_result
from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import ReplySpec
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.writers.template import TemplateWriter
from tests.unit.musicqa.corpora import musiccaps
from tests.unit.musicqa.fake_endpoint import running

NUM_TRACKS, IN_FLIGHT, LATENCY_S, MUSICCAPS_ROWS = 3000, 64, 1.0, 5521


def endpoint(folder: Path) -> dict[str, float]:
    """A whole build, start and end included."""
    root = musiccaps(folder / "corpus", NUM_TRACKS, audio=False)
    with running("--latency", str(LATENCY_S)) as url:
        ask = ["--writer", "endpoint", "--base-url", url, "--model", "m", "--concurrency", str(IN_FLIGHT)]
        where = ["--source", "musiccaps", "--root", root, "--out", folder / "out", "--missing-audio", "keep"]
        done = run_process([COMMAND, "musicqa", "build", *where, *ask, "--json"])
    accepted = json.loads(done.output)["accepted"]
    return {
        "replies": accepted,
        "replies_per_s": round(accepted / done.seconds, 1),
        "cores": round(done.cpu_s / done.seconds, 2),
    }


def template(csv: Path) -> dict[str, float]:
    """The writer alone, in one process; labels are read from tags and captions each time."""
    tracks = [item for item in source_by_name("musiccaps")(csv) if isinstance(item, Track)]
    writer, rates = TemplateWriter(ReplySpec()), []
    for _ in range(3):
        start = time.perf_counter()
        for track in tracks:
            writer.compose(track)
        rates.append(len(tracks) / (time.perf_counter() - start))
    return {"tracks": len(tracks), "tracks_per_s": round(statistics.median(rates))}


def template_build(csv: Path, folder: Path) -> dict[str, float]:
    """The whole command with the template writer: checks and files included."""
    where = ["--source", "musiccaps", "--root", csv, "--out", folder / "template", "--missing-audio", "keep"]
    done = run_process(["sh", "-c", '"$@" || test $? = 1', "sh", COMMAND, "musicqa", "build", *where, "--json"])
    report = json.loads(done.output)
    return {
        "tracks_per_s": round(report["tracks"] / done.seconds),
        "accepted": report["accepted"],
        "rejected": report["rejected"],
    }


def scan(csv: Path, folder: Path) -> dict[str, float]:
    """The scan command with its picture, CPU seconds."""
    line = [COMMAND, "musicqa", "scan", "musiccaps", csv, "--plot", folder / "tags.png", "--json"]
    runs = [run_process(line) for _ in range(3)]
    cpu_s = statistics.median(run.cpu_s for run in runs)
    return {"rows": json.loads(runs[0].output)["tracks"], "cpu_s": round(cpu_s, 2)}


def main() -> None:
    """Measure all three and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, help="the real musiccaps-public.csv")
    csv = parser.parse_args().csv
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = csv or musiccaps(folder / "made-up", MUSICCAPS_ROWS, audio=False) / "musiccaps-public.csv"
        result: dict[str, Any] = {
            "what": f"{IN_FLIGHT} requests in flight, {LATENCY_S:g} s latency; template writer; scan of MusicCaps",
            "real_csv": csv is not None,
            "endpoint": endpoint(folder),
            "template": template(chosen),
            "template_build": template_build(chosen, folder),
            "scan": scan(chosen, folder),
        }
    write_result("musicqa", result)


if __name__ == "__main__":
    main()
