"""From nothing to `clips.jsonl`: fetch, plan, render each group, join; a rerun does what is missing."""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections import Counter
from pathlib import Path

from recipes.mini.fetch import fetch
from recipes.mini.plans import default_work_dir, read_jsonl, write_jsonl
from recipes.mini.render import render_group

# Group: the module that writes its plans, in the order in which they are worth having.
MAKERS = {
    "C": "folk", "A": "bands", "D": "songs", "F": "recordings", "N": "negatives", "B": "scores", "E": "voices",
}  # fmt: skip


def join(work_dir: Path) -> None:
    """Write `clips.jsonl` from the groups there are, and print what is in it."""
    records = [r for group in sorted(MAKERS) for r in read_jsonl(work_dir / "clips" / f"{group}.jsonl")]
    split_of_work: dict[str, str] = {}
    for record in records:
        if split_of_work.setdefault(record["work"], record["split"]) != record["split"]:
            raise ValueError(f"work {record['work']} is in two splits; fix the split rule of its group")
    write_jsonl(work_dir / "clips.jsonl", records)
    counts = Counter((record["group"], record["split"]) for record in records)
    print(", ".join(f"{group} {split} {num}" for (group, split), num in sorted(counts.items())))
    hours = sum(record["seconds"] for record in records) / 3600
    print(f"{len(records)} clips, {hours:.2f} h -> {work_dir / 'clips.jsonl'}")


def main() -> None:
    """Run every step for the groups asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir(), help="folder for all heavy files")
    parser.add_argument("--groups", default="".join(MAKERS), help="which groups to make, e.g. CA")
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="share of the clips to make, one of each kind at least"
    )
    parser.add_argument("--without-test", action="store_true", help="leave the test split out")
    parser.add_argument("--join", action="store_true", help="count all clips and check their splits at the end")
    options = parser.parse_args()
    os.environ["MINI_FRACTION"] = str(options.fraction)
    os.environ["MINI_WITHOUT_TEST"] = "1" if options.without_test else ""
    began = time.monotonic()
    fetch(options.work)
    for group in options.groups:
        if not (options.work / "plans" / f"{group}.jsonl").exists():
            importlib.import_module(f"recipes.mini.{MAKERS[group]}").make_plans(options.work)
        render_group(options.work, group)
        print(f"{time.monotonic() - began:.0f} s since the start", flush=True)
    if options.join:
        join(options.work)


if __name__ == "__main__":
    main()
