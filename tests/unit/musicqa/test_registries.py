"""A corpus, or an export format, is one file and one line in a registry: nothing else has to know it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mu_llama.files import write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.export import EXPORT_FORMATS
from mu_llama.musicqa.export.staging import ExportFormat, Items
from mu_llama.musicqa.sources import SOURCES
from mu_llama.musicqa.sources.corpus_files import BadTrack
from tests.unit.musicqa.commands import run


def lines_of_text(root: Path) -> Iterator[Track | BadTrack]:
    """A corpus that is a text file: a name and an instrument on each line."""
    for line in (root / "names.txt").read_text().splitlines():
        name, _, instrument = line.partition(" ")
        track = Track(f"names/{name}", tags={"instrument": (instrument,)}, source="names")
        yield track if instrument else BadTrack(name, "has no instrument")


def write_names(items: Items, folder: Path, *, out: Path, allow_missing_audio: bool) -> dict[str, int]:
    """A format that is a text file: the name of each track."""
    names = [item.track.id for item in items()]
    write_whole(folder / "names.txt", [f"{name}\n" for name in names])
    return {"names": len(names)}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(SOURCES, "names", lines_of_text)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "names.txt").write_text("a piano\nb violin\nc\na flute\n")
    return tmp_path / "corpus"


def build(corpus: Path, out: Path) -> None:
    line = ["--source", "names", "--root", str(corpus), "--out", str(out), "--missing-audio", "keep", "--json"]
    done = run("build", *line)
    assert done.returncode == 1, "one row is bad, one comes twice"
    report = json.loads(done.stdout)
    assert (report["accepted"], report["skipped_rows"]) == (2, 2)


def test_a_corpus_is_one_registry_line(corpus: Path, tmp_path: Path) -> None:
    counts = json.loads(run("scan", "names", str(corpus), "--json").stdout)
    assert (counts["tracks"], counts["bad_rows"]) == (2, 2)
    assert counts["tags"] == {"instrument": {"piano": 1, "violin": 1}}
    build(corpus, tmp_path / "out")
    done = run("scan", "nothing", str(corpus))
    assert "source 'nothing' is unknown; expected one of: musiccaps, " in done.stderr
    assert done.stderr.strip().endswith(", names")


def test_an_export_format_is_one_registry_line(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORT_FORMATS, "names", lambda: ExportFormat(write_names, files=("names.txt",)))
    build(corpus, tmp_path / "built")
    line = ["export", str(tmp_path / "built"), "--to", "names", "--out", str(tmp_path / "out")]
    done = run(*line)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}: 2 names\n")
    assert (tmp_path / "out" / "names.txt").read_text() == "names/a\nnames/b\n"
    assert "Questions and answers about music" in (tmp_path / "out" / "README.md").read_text()
    # Also one of an earlier version, which listed no files, is replaced; what is nobody's isn't.
    (tmp_path / "out" / ".export.json").unlink()
    assert run(*line).returncode == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "names.txt").write_text("mine")
    done = run(*line[:-1], str(tmp_path / "mine"))
    assert done.returncode == 2
    assert "holds names.txt, which no export to names wrote" in done.stderr
    assert "--to is 'nothing'; expected one of: published, " in run(*line[:3], "nothing", *line[4:]).stderr
    assert (tmp_path / "mine" / "names.txt").read_text() == "mine"


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_there(name: str, tmp_path: Path) -> None:
    done = run("scan", name, str(tmp_path / "nowhere"))
    assert (done.returncode, "there is no such folder" in done.stderr) == (2, True)


def test_help_names_every_source_and_format() -> None:
    assert ", ".join(SOURCES) in " ".join(run("scan", "--help").stdout.split())
    assert ", ".join(SOURCES) in " ".join(run("build", "--help").stdout.split())
    assert ", ".join(EXPORT_FORMATS) in " ".join(run("export", "--help").stdout.split())
