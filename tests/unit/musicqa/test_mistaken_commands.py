"""Commands with a mistake in them: each is refused in one line, and the corrected command works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.musicqa import corpora
from tests.unit.musicqa.commands import run

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A folder of three tones with a table of labels."""
    rows = ["file,genre,instrument,mood"]
    for number in range(3):
        corpora.tone(tmp_path / "music" / f"{number}.wav", frequency_hz=200 + number)
        rows.append(f"{number}.wav,jazz,piano,calm")
    (tmp_path / "music" / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "music"


def build(root: Path, out: Path, *more: str, source: str = "folder") -> tuple[int, str, str]:
    done = run("build", "--source", source, "--root", str(root), "--out", str(out), *more)
    return done.returncode, done.stdout, " ".join(done.stderr.split())


@pytest.mark.parametrize(("source", "root"), [("foldr", "music"), ("folder", "nope"), ("musiccaps", "music")])
def test_a_build_that_failed_early_binds_no_settings(source: str, root: str, music: Path, tmp_path: Path) -> None:
    code, _, error = build(tmp_path / root, tmp_path / "qa", source=source)
    assert code == 2, error
    assert (source == "musiccaps") == (tmp_path / "qa").exists(), "typed names are checked before anything is written"
    assert build(music, tmp_path / "qa")[0] == 0


def test_a_build_of_nothing_is_an_error(music: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, output, error = build(tmp_path / "empty", tmp_path / "qa")
    assert code == 2
    assert "no usable track was found" in error
    assert "mu-llama train" not in output
    assert run("export", str(tmp_path / "qa"), "--out", str(tmp_path / "out")).returncode == 2
    (tmp_path / "empty" / "a.wav").write_bytes(b"no sound")
    assert "1 left out: a.wav: is text, not audio" in build(tmp_path / "empty", tmp_path / "qa")[2]
    assert build(music, tmp_path / "qa")[0] == 0


def test_a_build_without_items_is_not_exported(tmp_path: Path) -> None:
    corpora.tone(tmp_path / "music" / "a.wav")  # without labels, so nothing can be written about it
    code, output, _ = build(tmp_path / "music", tmp_path / "qa")
    assert code == 2
    assert "mu-llama train" not in output
    done = run("export", str(tmp_path / "qa"), "--to", "jsonl", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "holds no item" in done.stderr
    assert not (tmp_path / "out").exists()


def test_other_settings_are_named_as_options(music: Path, tmp_path: Path) -> None:
    build(music, tmp_path / "qa")
    code, _, error = build(music, tmp_path / "qa", "--num-pairs", "3", "--missing-audio", "keep", "--strict")
    assert code == 2
    assert "--num-pairs: 5 before, 3 now" in error
    assert "--missing-audio: skip before, keep now" in error
    assert "--strict: off before, on now" in error


def test_the_corpus_is_no_place_for_the_build(music: Path) -> None:
    before = sorted(music.iterdir())
    for root in (music, music / "labels.csv"):
        code, _, error = build(root, music / ".." / "music")
        assert (code, "is the corpus; choose another --out" in error) == (2, True)
    assert sorted(music.iterdir()) == before


def test_a_label_file_is_a_root_of_folder(music: Path, tmp_path: Path) -> None:
    (music / "labels.csv").rename(music / "mine.csv")
    assert build(music / "mine.csv", tmp_path / "qa")[0] == 0
    items = [json.loads(line) for line in (tmp_path / "qa" / "items.jsonl").read_text().splitlines()]
    assert [item["track"]["tags"]["instrument"] for item in items] == [["piano"]] * 3
    error = build(music / "0.wav", tmp_path / "other")[2]
    assert "is no label file (.csv, .tsv, .jsonl)" in error
    assert "no such folder" not in error


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_labels_with_other_separators_are_read(separator: str, music: Path) -> None:
    table = music / "labels.csv"
    table.write_text(table.read_text().replace(",", separator))
    counts = json.loads(run("scan", "folder", str(music), "--json").stdout)
    assert (counts["tracks"], counts["bad_rows"]) == (3, 0)
    assert counts["tags"]["instrument"] == {"piano": 3}


def test_a_table_without_a_file_column_names_those_that_are_taken(music: Path) -> None:
    (music / "labels.csv").write_text("name;genre\n0.wav;jazz\n")
    error = " ".join(run("scan", "folder", str(music)).stderr.split())
    assert "expected one of file, file_name, filename, audio, path; it has: name, genre" in error


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_git_lfs_pointers_of_labels_are_named(name: str, music: Path) -> None:
    (music / "labels.csv").unlink()
    (music / name).write_text(POINTER)
    assert "git lfs pull" in run("scan", "folder", str(music)).stderr
    (music / name).unlink()
    (music / "0.json").write_text(POINTER)
    assert "git lfs pull" in run("scan", "folder", str(music)).stdout


def test_git_lfs_pointers_of_corpora_and_published_files_are_named(tmp_path: Path) -> None:
    for source, name in (
        ("musiccaps", "musiccaps-public.csv"),
        ("magnatagatune", "annotations_final.csv"),
        ("mtg-jamendo", "autotagging.tsv"),
    ):
        (tmp_path / name).write_text(POINTER)
        assert "git lfs pull" in run("scan", source, str(tmp_path)).stderr
    (tmp_path / "EvalMusicQA.json").write_text(POINTER)
    done = run("import", str(tmp_path / "EvalMusicQA.json"), "--out", str(tmp_path / "imported"))
    assert "git lfs pull" in done.stderr
