"""What is left out is counted by reason and named, in scans, reports and files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mu_llama.cli.main import typer_app
from mu_llama.files import read_lines
from mu_llama.labels.track import Track
from mu_llama.musicqa.build import BuildOptions, build_data_set, in_this_process
from mu_llama.musicqa.build_folder import BuildFolder
from mu_llama.musicqa.reply import ReplySpec
from mu_llama.musicqa.report import LeftOut, empty_split_line, kind_of_reason, left_out_lines
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.sources.corpus_files import BadTrack
from mu_llama.musicqa.writers.template import TemplateWriter
from tests.unit.musicqa import corpora


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("its audio is missing; --missing-audio keep writes about it", "its audio is missing"),
        ("13.flac: ends early, after 0.6 s of 23.0 s; copy it again", "ends early, after N s of N s"),
        ("/music/a b/13.flac: isn't audio (Invalid data)", "isn't audio"),
        ("key: 'o' is no key", "key: ... is no key"),
        ("expected 0 or 1 under 'violin', not '7'", "expected N or N under ..., not ..."),
    ],
)
def test_reasons_are_counted_without_what_differs(reason: str, kind: str) -> None:
    assert kind_of_reason(reason) == kind


def test_the_first_are_named_and_all_are_counted() -> None:
    left_out = LeftOut()
    for number in range(9):
        left_out.add(BadTrack(f"disc {number % 2}/13.flac", "13.flac: is empty (0 bytes)"))
        left_out.add(Track(f"folder/{number}", dropped=(f"key: '{number}' is no key", "tempo_bpm: 0 is no tempo")))
    counts = left_out.to_dict(tracks="bad", values="dropped_labels")
    assert counts["bad_for"] == {"is empty": 9}
    assert counts["bad_first"][:2] == [
        "disc 0/13.flac: 13.flac: is empty (0 bytes)",
        "disc 1/13.flac: 13.flac: is empty (0 bytes)",
    ]
    assert (counts["dropped_labels"], counts["dropped_labels_tracks"]) == (18, 9)
    assert counts["dropped_labels_for"] == {"key: ... is no key": 9, "tempo_bpm: N is no tempo": 9}
    lines = left_out_lines(counts, tracks="bad", values="dropped_labels", where="all in x")
    assert "  9 x key: ... is no key" in lines
    assert "    folder/0: key: '0' is no key" in lines
    assert lines[-1] == "  (all in x)"
    assert left_out_lines(LeftOut().to_dict(tracks="a", values="b"), tracks="a", values="b", where="x") == []


def test_names_of_files_can_not_write_to_the_terminal() -> None:
    left_out = LeftOut()
    left_out.add(BadTrack("\x1b[31mred\udce9\n.wav", "is empty"))
    lines = left_out_lines(left_out.to_dict(tracks="a", values="b"), tracks="a", values="b", where="x")
    assert "    ?[31mred??.wav: is empty" in lines


def test_a_build_reports_and_lists_what_it_left_out(tmp_path: Path) -> None:
    tracks: list[Track | BadTrack] = [BadTrack("row 7", "has no name")]
    for track in source_by_name("musiccaps")(corpora.musiccaps(tmp_path / "corpus", 3)):
        assert isinstance(track, Track)
        tracks.append(dataclasses.replace(track, dropped=("key: 'o' is no key",)))
    out = tmp_path / "out"
    writer = in_this_process(TemplateWriter(ReplySpec()))
    report = build_data_set(BuildFolder(out), lambda: tracks, writer, BuildOptions(test=0.0), identity={})
    assert (report["skipped_rows"], report["skipped_for"]) == (1, {"has no name": 1})
    assert (report["dropped_labels"], report["dropped_labels_for"]) == (3, {"key: ... is no key": 3})
    assert json.loads((out / "run.json").read_text())["report"] == report
    assert [row["dropped"] for row in read_lines(out / "dropped.jsonl")] == [["key: 'o' is no key"]] * 3


def test_empty_splits_are_named_with_what_to_do(tmp_path: Path) -> None:
    root = corpora.musiccaps(tmp_path / "corpus", 2, audio=False)
    found, writer = source_by_name("musiccaps"), in_this_process(TemplateWriter(ReplySpec()))
    options = BuildOptions(validation=0.0, test=1e-9, keep_missing=True)
    report = build_data_set(BuildFolder(tmp_path / "out"), lambda: found(root), writer, options, identity={})
    assert report["empty_splits"] == ["test"], "none was wanted for validation"
    line = empty_split_line(report, {"validation": 0.0, "test": 1e-9})
    assert line is not None
    assert line.startswith("no track for test: ")
    assert "2 artists are too few" in line
    assert "--seed" in line
    assert empty_split_line({"empty_splits": []}, {}) is None


def test_a_scan_writes_only_what_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for album in ("one", "two"):
        corpora.tone(tmp_path / "corpus" / album / "13.wav").write_bytes(b"no sound")
    corpora.tone(tmp_path / "corpus" / "good.wav")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = CliRunner().invoke(typer_app, ["musicqa", "scan", "folder", "../corpus"])
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "here").iterdir()) == []
    assert "1 tracks" in done.output
    assert "one/13.wav" in done.output
    assert "two/13.wav" in done.output
    line = ["musicqa", "scan", "folder", "../corpus", "--json", "--left-out", "all.jsonl", "--plot", "tags.png"]
    done = CliRunner().invoke(typer_app, line)
    assert json.loads(done.output)["bad_rows"] == 2
    assert sorted(path.name for path in Path().iterdir()) == ["all.jsonl", "tags.png"]
    assert [row["where"] for row in read_lines(Path("all.jsonl"))] == ["one/13.wav", "two/13.wav"]
