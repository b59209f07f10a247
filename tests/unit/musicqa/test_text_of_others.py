"""Labels and names come from files of others: they are shown to the letter, and break nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from mu_llama.files import read_lines
from mu_llama.musicqa.export import EXPORT_FORMATS
from mu_llama.musicqa.items import read_items, split_of
from mu_llama.musicqa.statistics import plot_bars
from tests.unit.musicqa import corpora
from tests.unit.musicqa.commands import run

ODD_LABEL = "weird\ud83d [bold] :smile: $x"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of a corpus whose labels hold markup, and halves of surrogate pairs as JSON can."""
    root = tmp_path_factory.mktemp("odd") / "corpus"
    for number in range(3):
        corpora.tone(root / f"{number}.wav", frequency_hz=200 + number)
        labels = {"genre": ["jazz", ODD_LABEL], "instrument": "piano", "artist": f"A {number} \ud83d",
                  "title": "t\udce9", "licence": "CC BY \udce9 4.0"}  # fmt: skip
        (root / f"{number}.json").write_text(json.dumps(labels))
    done = run("build", "--source", "folder", "--root", str(root), "--out", str(root.with_name("built")))
    assert done.returncode == 0, done.stderr
    return root.with_name("built")


def test_a_scan_shows_labels_to_the_letter(built: Path, tmp_path: Path) -> None:
    done = run("scan", "folder", str(built.with_name("corpus")), "--plot", str(tmp_path / "tags.png"))
    assert done.returncode == 0, done.stderr
    assert "weird? [bold] :smile: $x" in done.stdout
    assert "licence: CC BY ? 4.0 (3)" in done.stdout
    assert (tmp_path / "tags.png").is_file()


def test_a_plot_takes_labels_for_no_formula(tmp_path: Path) -> None:
    plot_bars(tmp_path / "bars.png", {"$\\frac": []} | {"tags": [("$\\nothing{$", 3), ("a\x00b", 2)]}, unit="tracks")
    assert (tmp_path / "bars.png").is_file()


def test_half_a_surrogate_pair_goes_through_a_build(built: Path) -> None:
    assert [item.track.artist for item in read_items(built / "items.jsonl")] == [f"A {n} \ud83d" for n in range(3)]
    assert {row["group"] for row in read_lines(built / "train.jsonl")} == {f"A {n} \ud83d" for n in range(3)}
    assert split_of("\ud83d", validation=0.5, test=0.5, seed=0) in ("validation", "test")


@pytest.mark.parametrize("to", EXPORT_FORMATS)
def test_half_a_surrogate_pair_goes_through_an_export(to: str, built: Path, tmp_path: Path) -> None:
    done = run("export", str(built), "--to", to, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "| CC BY ? 4.0 | 3 |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    if to == "huggingface":
        rows = pyarrow.parquet.read_table(tmp_path / "out" / "data" / "train-00000.parquet").to_pylist()
        assert (rows[0]["artist"], rows[0]["title"]) == ("A 0 ?", "t?")
