"""Whole builds through the command without a language model: splits, damaged folders, full disks, options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mu_llama.errors import ConfigError
from mu_llama.files import read_lines
from mu_llama.labels.track import Track
from mu_llama.musicqa.build import BuildOptions, build_data_set, in_this_process
from mu_llama.musicqa.build_folder import BuildError, BuildFolder
from mu_llama.musicqa.items import read_items, split_of
from mu_llama.musicqa.reply import ReplySpec
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.worker import Rules
from mu_llama.musicqa.writers.template import TemplateWriter
from mu_llama.training.config import DatasetEntry
from mu_llama.training.dataset import read_datasets
from tests.unit.musicqa import corpora
from tests.unit.musicqa.commands import RESULTS, building, results, run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.musiccaps(tmp_path_factory.mktemp("corpus"), 40)


def test_a_build_without_a_language_model(corpus: Path, tmp_path: Path) -> None:
    done = run(*building(corpus, tmp_path / "out", "--validation", "0.2", "--test", "0.2"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["tracks"], report["accepted"], report["rejected"]) == (40, 40, 0)
    assert sum(report["splits"].values()) == 40
    assert min(report["splits"].values()) > 0
    (dataset,) = read_datasets([DatasetEntry(path=tmp_path / "out" / "train.jsonl")])
    assert len(dataset.examples) == report["splits"]["train"] * 12
    assert all(example.audio is not None and example.audio.is_file() for example in dataset.examples)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    again = run(*building(corpus, tmp_path / "out", "--validation", "0.2", "--test", "0.2"))
    assert json.loads(again.stdout) == report
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "a finished build is left alone"
    other = run(*building(corpus, tmp_path / "out", "--seed", "3"))
    assert other.returncode == 2
    assert "seed: 0 before, 3 now" in other.stderr


def test_an_artist_is_in_one_split() -> None:
    groups = [f"artist {number}" for number in range(2000)]
    split = [split_of(group, validation=0.1, test=0.2, seed=0) for group in groups]
    assert split == [split_of(group, validation=0.1, test=0.2, seed=0) for group in groups]
    assert 150 < split.count("validation") < 250
    assert 340 < split.count("test") < 460
    assert split != [split_of(group, validation=0.1, test=0.2, seed=1) for group in groups]
    assert Track("a", artist="x").group == Track("b", artist="x").group


def test_a_damaged_or_emptied_build_is_named_or_mended(corpus: Path, tmp_path: Path) -> None:
    run(*building(corpus, tmp_path / "out"))
    before = results(tmp_path / "out")
    for name in RESULTS:
        (tmp_path / "out" / name).unlink()
    assert run(*building(corpus, tmp_path / "out")).returncode == 0
    assert results(tmp_path / "out") == before
    refused = run(*building(corpus, tmp_path / "out", "--retry-rejects", "--seed", "5"))
    assert "other settings" in refused.stderr
    assert "report" in json.loads((tmp_path / "out" / "run.json").read_text()), "nothing was forgotten"
    lines = (tmp_path / "out" / "replies.jsonl").read_text().splitlines()
    lines[3] = "{broken"
    (tmp_path / "out" / "replies.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "out" / "items.jsonl").unlink()
    done = run(*building(corpus, tmp_path / "out"))
    assert done.returncode == 2
    assert "replies.jsonl, line 4: is damaged" in done.stderr


def test_unreadable_audio_is_skipped_by_name(tmp_path: Path) -> None:
    root = corpora.musiccaps(tmp_path / "corpus", 3)
    (root / "[video00001]-[30-40].wav").write_bytes(b"no sound")
    done = run(*building(root, tmp_path / "out"))
    assert done.returncode == 1
    (row,) = read_lines(tmp_path / "out" / "skipped.jsonl")
    assert "video00001" in row["where"]
    assert "[video00001]-[30-40].wav" in row["reason"]


def test_replies_that_contradict_their_labels_are_rejected_with_the_reason(corpus: Path, tmp_path: Path) -> None:
    class Liar(TemplateWriter):
        async def write(self, track: Track, *, attempt: int) -> Any:
            written = await super().write(track, attempt=attempt)
            if track.id.endswith("1-30-40"):
                written.reply["heard"] = "A didgeridoo and a kazoo."
            return written

    folder = BuildFolder(tmp_path)
    found = source_by_name("musiccaps")
    report = build_data_set(
        folder,
        lambda: found(corpus),
        in_this_process(Liar(ReplySpec())),
        BuildOptions(Rules(num_attempts=3)),
        identity={},
    )
    assert (report["accepted"], report["rejected"]) == (36, 4)
    assert report["attempts"] == 36 + 4 * 3
    assert report["rejected_for"] == {"names what labels don't": 4}
    rejects = list(read_lines(tmp_path / "rejects.jsonl"))
    assert all("heard names didgeridoo" in row["reasons"][0] for row in rejects)
    folder.forget_rejects()
    truthful = in_this_process(TemplateWriter(ReplySpec()))
    report = build_data_set(folder, lambda: found(corpus), truthful, BuildOptions(Rules(num_attempts=3)), identity={})
    assert report["accepted"] == 40


def test_missing_audio_is_skipped_or_kept(tmp_path: Path) -> None:
    root = corpora.musiccaps(tmp_path / "corpus", 5)
    (root / "[video00003]-[30-40].wav").unlink()
    done = run(*building(root, tmp_path / "skip"))
    assert done.returncode == 1, "something was left out"
    assert json.loads(done.stdout)["skipped_rows"] == 1
    (row,) = read_lines(tmp_path / "skip" / "skipped.jsonl")
    assert "video00003" in row["where"]
    assert "audio is missing" in row["reason"]
    assert json.loads(run(*building(root, tmp_path / "keep", "--missing-audio", "keep")).stdout)["accepted"] == 5


def test_a_full_disk_names_itself_and_the_build_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_full(folder: BuildFolder, outcome: Any) -> None:
        if len(folder.done()) == 7:
            raise OSError(28, "No space left on device")
        keep(folder, outcome)

    keep = BuildFolder.keep
    found, writer = source_by_name("musiccaps"), TemplateWriter(ReplySpec())
    arguments = (lambda: found(corpus), in_this_process(writer), BuildOptions())
    with monkeypatch.context() as patched:
        patched.setattr(BuildFolder, "keep", open_full)
        with pytest.raises(BuildError, match=r"No space left.*start the same command again"):
            build_data_set(BuildFolder(tmp_path / "out"), *arguments, identity={})
    assert build_data_set(BuildFolder(tmp_path / "out"), *arguments, identity={})["accepted"] == 40
    build_data_set(BuildFolder(tmp_path / "whole"), *arguments, identity={})
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_foreign_folder_and_a_second_build_are_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("precious")
    done = run(*building(corpus, tmp_path))
    assert done.returncode == 2
    assert "holds items.jsonl of no build" in done.stderr
    assert (tmp_path / "items.jsonl").read_text() == "precious"
    folder = BuildFolder(tmp_path / "busy")
    with folder.locked(), pytest.raises(ConfigError, match="another build is at work"), folder.locked():
        pass


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--writer", "oracle"], "writer 'oracle' is unknown; expected one of: template, endpoint, local"),
        (["--writer", "endpoint", "--model", "x"], "needs --base-url"),
        (["--writer", "endpoint", "--model", "x", "--base-url", "ftp://a:b@c"], "has no http://host; got 'c'"),
        (["--missing-audio", "maybe"], "expected skip or keep"),
        (["--validation", "0.5", "--test", "0.5"], "leave nothing to train on"),
        (["--ray", "127.0.0.1:1"], "can't be reached"),
        (["--writer", "endpoint", "--base-url", "http://localhost:1", "--model", "x", "--prompts", "/nowhere"],
         "can't be read"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(more: list[str], message: str, corpus: Path, tmp_path: Path) -> None:
    done = run(*building(corpus, tmp_path / "out", *more))
    assert done.returncode == 2
    assert message in done.stderr


def test_items_read_back(corpus: Path, tmp_path: Path) -> None:
    run(*building(corpus, tmp_path / "out"))
    items = list(read_items(tmp_path / "out" / "items.jsonl"))
    assert [type(item).from_dict(item.to_dict()) for item in items] == items
    kinds = {kind for item in items for kind, _, _ in item.pairs}
    assert kinds == {"fixed", "open", "caption", "choice"}
    for kind, question, answer in items[0].pairs:
        if kind == "choice":
            assert f"{answer}" in question
            assert question.count("(") == 4
