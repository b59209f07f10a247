"""Energy, valence and the like of every clip as VibeNet guesses them: pseudo-labels, and called so everywhere.

VibeNet (GPL-3+) is a tool here: nothing of it is part of the project. Run in the data environment.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

from recipes.mini.plans import default_work_dir, read_jsonl, write_jsonl

_AT_ONCE = 32
_VALUES = ("energy", "valence", "danceability", "acousticness", "instrumentalness")


def guess(work_dir: Path) -> None:
    """Append to `feel.jsonl` what isn't in it yet."""
    warnings.simplefilter("ignore")
    from vibenet import load_model

    out = work_dir / "feel.jsonl"
    done = {row["id"] for row in read_jsonl(out)}
    clips = [clip for path in sorted((work_dir / "clips").glob("?.jsonl")) for clip in read_jsonl(path)]
    todo = [clip for clip in clips if clip["id"] not in done and clip["group"] != "N"]
    model = load_model()
    write_jsonl(out, read_jsonl(out))  # without what a kill left of a line
    with out.open("a", encoding="utf-8") as file:
        for first in range(0, len(todo), _AT_ONCE):
            batch = todo[first : first + _AT_ONCE]
            results = model.predict([str(work_dir / clip["path"]) for clip in batch])
            for clip, result in zip(batch, results, strict=True):
                row = {name: round(float(getattr(result, name)), 3) for name in _VALUES}
                file.write(json.dumps({"id": clip["id"], **row}) + "\n")
            file.flush()
            print(f"{first + len(batch)}/{len(todo)} clips guessed", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    guess(parser.parse_args().work)
