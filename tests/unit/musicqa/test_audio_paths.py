"""Audio is found from any directory, after moves of either side, and in data sets of earlier versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mu_llama.errors import ConfigError
from mu_llama.files import read_lines, to_line
from mu_llama.labels.track import Track
from mu_llama.musicqa.audio_paths import AudioPaths, relative_to_folder, write_places
from mu_llama.musicqa.build import BuildOptions, build_data_set, in_this_process
from mu_llama.musicqa.build_folder import BuildFolder
from mu_llama.musicqa.export.data_set import finished_items
from mu_llama.musicqa.reply import ReplySpec
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.writers.template import TemplateWriter
from mu_llama.training.config import DatasetEntry
from mu_llama.training.dataset import read_datasets
from tests.unit.musicqa import corpora


def make(root: Path, out: Path) -> None:
    """Build from a root as it was spelled on the command line."""
    found = source_by_name("folder")
    writer = in_this_process(TemplateWriter(ReplySpec()))
    identity = {"source": "folder", "root": str(root.absolute())}
    build_data_set(BuildFolder(out), lambda: found(root), writer, BuildOptions(validation=0, test=0), identity=identity)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a corpus of two files of one name, and a build that was made inside it by relative paths."""
    folder = tmp_path / "project"
    for album in ("one", "two"):
        corpora.tone(folder / "corpus" / album / "13.wav")
        (folder / "corpus" / album / "13.json").write_text('{"genre": "jazz", "instrument": "piano"}')
    monkeypatch.chdir(folder)
    make(Path("corpus"), Path("qa"))
    monkeypatch.chdir(tmp_path)
    return folder


def check_found(out: Path, corpus: Path, root: Path | None = None) -> None:
    audio = [item.track.audio for item in finished_items(out, root=root)]
    assert audio == [corpus.resolve() / "one" / "13.wav", corpus.resolve() / "two" / "13.wav"]
    if root is None:
        (dataset,) = read_datasets([DatasetEntry(path=out / "train.jsonl")])
        assert {example.audio.resolve() for example in dataset.examples if example.audio} == set(audio)


def test_audio_is_found_from_another_directory_and_after_any_move(project: Path, tmp_path: Path) -> None:
    for name in ("tracks.jsonl", "train.jsonl"):
        assert all(not Path(row["audio"]).is_absolute() for row in read_lines(project / "qa" / name))
        assert all((project / "qa" / row["audio"]).is_file() for row in read_lines(project / "qa" / name))
    check_found(project / "qa", project / "corpus")
    (project / "qa").rename(tmp_path / "archived")  # the build alone
    check_found(tmp_path / "archived", project / "corpus")
    (tmp_path / "archived").rename(project / "qa")
    shutil.copytree(project, tmp_path / "copy")
    shutil.rmtree(project)  # both together
    check_found(tmp_path / "copy" / "qa", tmp_path / "copy" / "corpus")
    (tmp_path / "copy" / "corpus").rename(tmp_path / "elsewhere")  # the corpus alone: somebody has to say so
    assert not any(item.track.audio.is_file() for item in finished_items(tmp_path / "copy" / "qa") if item.track.audio)
    check_found(tmp_path / "copy" / "qa", tmp_path / "elsewhere", root=tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="nowhere: there is no such folder"):
        finished_items(tmp_path / "copy" / "qa", root=tmp_path / "nowhere")


@pytest.mark.parametrize("spelled", ["corpus/one/13.wav", "{root}/one/13.wav"])
def test_a_build_of_an_earlier_version_opens_from_anywhere(
    spelled: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = project / "qa"
    (out / "audio.json").unlink()
    rows = list(read_lines(out / "items.jsonl"))[:1]
    rows[0]["track"]["audio"] = spelled.format(root=project / "corpus")
    (out / "items.jsonl").write_text("".join(map(to_line, rows)))
    expected = project / "corpus" / "one" / "13.wav"
    assert [item.track.audio for item in finished_items(out)] == [expected]
    (project / "corpus").rename(tmp_path / "moved")
    (item,) = finished_items(out, root=tmp_path / "moved")
    assert item.track.audio == tmp_path / "moved" / "one" / "13.wav"
    run = json.loads((out / "run.json").read_text())
    del run["settings"]["root"]  # nothing but the working directory helps
    (out / "run.json").write_text(json.dumps(run))
    monkeypatch.chdir(project)
    (tmp_path / "moved").rename(project / "corpus")
    assert [item.track.audio for item in finished_items(out)] == [expected]


def test_links_to_folders_are_followed_before_paths_are_taken_apart(tmp_path: Path) -> None:
    audio = corpora.tone(tmp_path / "disk" / "deep" / "corpus" / "a.wav")
    (tmp_path / "disk" / "builds" / "qa").mkdir(parents=True)
    (tmp_path / "qa").symlink_to(tmp_path / "disk" / "builds" / "qa")
    (tmp_path / "corpus").symlink_to(audio.parent)
    assert relative_to_folder(tmp_path / "corpus" / "a.wav", tmp_path / "qa") == "../../deep/corpus/a.wav"
    write_places(tmp_path / "qa", tmp_path / "corpus")
    track = Track("a", tmp_path / "corpus" / "a.wav")
    paths = AudioPaths.of(tmp_path / "qa")
    assert paths.from_record(paths.to_record(track)).audio == audio.resolve()


def test_a_file_outside_of_the_corpus_stays_where_it_is(tmp_path: Path) -> None:
    outside, root = corpora.tone(tmp_path / "x" / "a.wav"), tmp_path / "corpus"
    root.mkdir()
    (tmp_path / "qa").mkdir()
    write_places(tmp_path / "qa", root)
    paths = AudioPaths.of(tmp_path / "qa", root=root)
    assert paths.from_record(paths.to_record(Track("a", outside))).audio == outside
    assert paths.from_record(Track("b")).audio is None


def test_a_damaged_record_of_places_is_named(tmp_path: Path) -> None:
    (tmp_path / "audio.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"audio\.json or run\.json can't be read"):
        AudioPaths.of(tmp_path)
