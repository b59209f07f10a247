"""The whole recipe of `mini`, a fiftieth of it, from Debian's packages to scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_a_fiftieth_of_the_recipe_runs_and_runs_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recipes.mini.make", "--work", str(tmp_path), "--fraction", "0.02"]
    subprocess.run(command, check=True, cwd=ROOT)
    assert {path.stem for path in (tmp_path / "clips").glob("?.jsonl")} == set("ABCDEFN")
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) > 50
    assert all(Path(row["audio"]).is_file() and row["turns"] for row in rows)
    works = {split: {json.loads(line).get("artist") for line in (tmp_path / f"tracks.{split}.jsonl").open()}
             for split in ("train", "val", "test")}  # fmt: skip
    assert not works["train"] & (works["val"] | works["test"])
    scores = json.loads((tmp_path / "mini.json").read_text())
    assert scores["tasks"]
    assert (tmp_path / "run" / "model" / "adapter.safetensors").is_file()
    assert "## Scores" in (tmp_path / "shipped" / "MODEL_CARD.md").read_text()
    assert (tmp_path / "shipped" / "lora.safetensors").is_file()
    subprocess.run(command, check=True, cwd=ROOT)  # every step goes on where it was
    times = [json.loads(line) for line in (tmp_path / "times.jsonl").read_text().splitlines()]
    rendering = [row["seconds"] for row in times if row["step"] == "clips"]
    assert len(rendering) == 2
    assert rendering[1] < rendering[0] / 2, "a second run rendered again"
