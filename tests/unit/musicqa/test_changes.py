"""A corpus that changed: found by the same command, and taken over without writing anything twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mu_llama.errors import ConfigError
from mu_llama.files import read_lines
from mu_llama.labels.track import Track
from mu_llama.musicqa.build import BuildOptions, build_data_set, in_this_process
from mu_llama.musicqa.build_folder import BuildFolder
from mu_llama.musicqa.changes import Changes
from mu_llama.musicqa.items import read_items
from mu_llama.musicqa.reply import ReplySpec
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.writers.template import TemplateWriter
from tests.unit.musicqa import corpora

RESULTS = ("tracks.jsonl", "items.jsonl", "train.jsonl", "validation.jsonl", "test.jsonl", "skipped.jsonl")


class Counted(TemplateWriter):
    """Notes what it is asked to write about."""

    def __init__(self) -> None:
        super().__init__(ReplySpec())
        self.ids: list[str] = []

    async def write(self, track: Track, *, attempt: int) -> Any:
        self.ids.append(track.id)
        return await super().write(track, attempt=attempt)


def label(path: Path, genre: str) -> None:
    path.with_suffix(".json").write_text(json.dumps({"genre": genre, "instrument": "piano", "mood": "calm"}))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for number in range(6):
        label(corpora.tone(tmp_path / "corpus" / f"{number}.wav"), "jazz")
    return tmp_path / "corpus"


def make(root: Path, out: Path, **options: Any) -> tuple[dict[str, Any], list[str], list[Changes]]:
    """Build; gives the report, the tracks that were written about, and what was told of changes."""
    writer, told, found = Counted(), [], source_by_name("folder")
    report = build_data_set(
        BuildFolder(out), lambda: found(root), in_this_process(writer), BuildOptions(validation=0.3, test=0.3),
        identity={"root": str(root.absolute())}, on_changes=told.append, **options,
    )  # fmt: skip
    return report, sorted(writer.ids), told


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in RESULTS}


def change(root: Path) -> None:
    """Add a file, rename one, take one away, relabel one, damage one."""
    label(corpora.tone(root / "0a.wav"), "rock")
    for suffix in (".wav", ".json"):
        (root / "1.wav").with_suffix(suffix).rename((root / "renamed.wav").with_suffix(suffix))
    (root / "2.wav").unlink()
    label(root / "3.wav", "techno")
    (root / "4.wav").write_bytes(b"no sound")


def test_changes_are_named_and_refused_until_they_are_wanted(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(corpus, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    change(corpus)
    with pytest.raises(
        ConfigError, match=r"2 added \(folder/0a\.wav, .*3 removed \(.*1 changed \(folder/3\.wav\).*--refresh"
    ):
        make(corpus, out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_refreshed_build_is_a_new_build_without_the_work(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(corpus, out)
    replies = {row["id"]: row for row in read_lines(out / "replies.jsonl")}
    change(corpus)
    report, written, told = make(corpus, out, refresh=True)
    assert written == ["folder/0a.wav", "folder/3.wav", "folder/renamed.wav"]
    assert [(len(now.added), len(now.removed), len(now.changed)) for now in told] == [(2, 3, 1)]
    expected, everything, _ = make(corpus, tmp_path / "new")
    assert len(everything) == 5
    assert report == expected
    assert contents(out) == contents(tmp_path / "new")
    kept = {row["id"]: row for row in read_lines(out / "replies.jsonl")}
    assert {name: kept[name] for name in ("folder/0.wav", "folder/5.wav")} == {
        name: replies[name] for name in ("folder/0.wav", "folder/5.wav")
    }
    assert all(item.track.audio and item.track.audio.is_file() for item in read_items(out / "items.jsonl"))
    assert make(corpus, out) == (report, [], [])
    assert make(corpus, out, refresh=True) == (report, [], []), "nothing is left to refresh"


def test_a_refresh_that_is_stopped_goes_on(corpus: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stopped

    out = tmp_path / "out"
    make(corpus, out)
    change(corpus)
    writer, found = in_this_process(Counted()), source_by_name("folder")
    for _ in range(2):  # in the middle of writing; and again
        with pytest.raises(Stopped):
            build_data_set(
                BuildFolder(out), lambda: found(corpus), writer, BuildOptions(validation=0.3, test=0.3),
                identity={"root": str(corpus)}, on_outcome=stop, refresh=True,
            )  # fmt: skip
    make(corpus, out)  # the list is the new one by now
    make(corpus, tmp_path / "new")
    assert contents(out) == contents(tmp_path / "new")


def test_a_corpus_that_only_moved_needs_no_word(corpus: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved" / "corpus"
    make(corpus, out)
    moved.parent.mkdir()
    corpus.rename(moved)
    _, written, told = make(moved, out)
    assert (written, told) == ([], [])
    assert all(item.track.audio and item.track.audio.is_file() for item in read_items(out / "items.jsonl"))
    make(moved, tmp_path / "new")
    assert contents(out) == contents(tmp_path / "new")


def test_a_build_of_an_earlier_version_gets_paths_that_hold(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(corpus, out)
    expected = contents(out)
    (out / "audio.json").unlink()
    for name in ("tracks.jsonl", "items.jsonl", "train.jsonl"):
        text = (out / name).read_text().replace('"../corpus/', f'"{corpus}/')
        (out / name).write_text(text)
    _, written, told = make(corpus, out)
    assert (written, told) == ([], [])
    assert contents(out) == expected
    assert (out / "audio.json").is_file()


def test_a_new_file_that_can_not_be_read_is_reported_by_a_finished_build(corpus: Path, tmp_path: Path) -> None:
    make(corpus, tmp_path / "out")
    (corpus / "bad.wav").write_bytes(b"no sound")
    report, written, _ = make(corpus, tmp_path / "out")
    assert (report["skipped_rows"], written) == (1, [])
    assert "bad.wav" in report["skipped_first"][0]


def test_no_track_is_looked_at_behind_the_limit(corpus: Path, tmp_path: Path) -> None:
    seen = []

    def found() -> Iterator[Any]:
        for row in source_by_name("folder")(corpus):
            seen.append(row)
            yield row

    build_data_set(
        BuildFolder(tmp_path / "out"),
        found,
        in_this_process(TemplateWriter(ReplySpec())),
        BuildOptions(limit=2),
        identity={},
    )
    assert len(seen) == 2
