"""Exports appear whole, from any directory, and touch nothing that isn't theirs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from mu_llama.cli.main import typer_app
from mu_llama.errors import ConfigError
from mu_llama.labels.track import Track
from mu_llama.musicqa.export import EXPORT_FORMATS, data_set, hugging_face
from mu_llama.musicqa.export.data_set import export_data_set, export_items, import_items
from mu_llama.musicqa.export.staging import ExportError, staged
from mu_llama.musicqa.items import DataSetItem, read_items
from mu_llama.musicqa.reply import Reply
from mu_llama.text.prompts import FIXED_QUESTIONS
from mu_llama.training.config import DatasetEntry
from mu_llama.training.config_file import load_config
from mu_llama.training.dataset import read_datasets
from tests.unit.musicqa import corpora

REPLY = Reply(("A tone.", "A long tone.", "A tone.", "Nothing."), ())


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(*line: str) -> Any:
    return CliRunner().invoke(typer_app, ["musicqa", *line])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A data set of three tracks, two of one name."""
    paths = [corpora.tone(tmp_path / "corpus" / name, frequency_hz=300) for name in ("a/13.wav", "b/13.wav", "c.wav")]
    items = [DataSetItem(Track(f"folder/{number}", path), REPLY, "train") for number, path in enumerate(paths)]
    import_items(items, tmp_path / "made", split="train", audio=tmp_path / "corpus")
    return tmp_path / "made"


def check_whole(out: Path, to: str) -> None:
    if to == "huggingface":
        audio = pyarrow.parquet.read_table(out / "data" / "train-00000.parquet")["audio"].to_pylist()
        assert [len(row["bytes"]) > 1000 for row in audio] == [True] * 3
    elif to == "published":
        assert len(list((out / "audios").glob("*.wav"))) == 3
    elif to == "jsonl":
        (dataset,) = read_datasets([DatasetEntry(path=out / "train.jsonl")])
        assert len({example.audio for example in dataset.examples}) == 3
    assert (out / "README.md").is_file()
    assert not (out / ".export.partial").exists()


@pytest.mark.parametrize("to", EXPORT_FORMATS)
def test_an_export_from_another_directory_has_its_audio(
    to: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = command("export", "../made", "--to", to, "--out", "out")
    assert done.exit_code == 0, done.output
    check_whole(Path("out"), to)
    assert all("corpus" not in text.decode() for name, text in files(Path("out")).items() if name.startswith("."))
    before = files(Path("out"))
    assert command("export", "../made", "--to", to, "--out", "out").exit_code == 0
    assert files(Path("out")).keys() == before.keys()


@pytest.mark.parametrize("to", ["huggingface", "published", "jsonl"])
def test_missing_audio_fails_and_leaves_the_earlier_export(to: str, made: Path, tmp_path: Path) -> None:
    out, line = tmp_path / "out", ["export", str(made), "--to", to, "--out", str(tmp_path / "out")]
    assert command(*line).exit_code == 0
    before = files(out)
    (tmp_path / "corpus").rename(tmp_path / "moved")
    done = command(*line)
    assert done.exit_code == 2
    assert "3 tracks have no audio" in done.output
    assert "folder/0: " in done.output
    assert "a/13.wav" in done.output
    assert "--allow-missing-audio" in done.output
    assert files(out) == before
    assert command(*line, "--root", str(tmp_path / "moved")).exit_code == 0
    check_whole(out, to)
    done = command(*line, "--allow-missing-audio", "--json")
    assert done.exit_code == 0
    assert 3 in json.loads(done.output).values(), "said how many"
    if to != "jsonl":
        assert sum(map(len, files(out).values())) < sum(map(len, before.values()))


def test_tracks_that_never_had_audio_are_fine(tmp_path: Path) -> None:
    items = [DataSetItem(Track("musicqa/x.wav"), REPLY, "train")]
    import_items(items, tmp_path / "made", split="train", audio=None)
    for to in EXPORT_FORMATS:
        assert "missing_audio" not in export_data_set(tmp_path / "made", tmp_path / to, to=to)


def test_a_file_that_can_not_be_decoded_is_named(made: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus" / "b" / "13.wav").write_bytes(b"no sound")
    items = list(read_items(made / "items.jsonl"))
    with pytest.raises(ExportError, match=r"1 track has no audio that can be read \(folder/1: .*b/13\.wav"):
        export_items(lambda: items, tmp_path / "out", to="published", run={})
    assert not (tmp_path / "out").exists()
    assert (
        export_items(lambda: items, tmp_path / "out", to="published", run={}, allow_missing_audio=True)["unheard"] == 1
    )


def test_a_full_disk_leaves_the_earlier_export(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    export_data_set(made, out, to="huggingface")
    before = files(out)
    monkeypatch.setattr(hugging_face._Shards, "_close", full)
    with pytest.raises(ExportError, match=r"No space left on device\); what was there stays"):
        export_data_set(made, out, to="huggingface")
    assert files(out) == before
    with pytest.raises(ExportError):
        export_data_set(made, tmp_path / "new", to="huggingface")
    assert not (tmp_path / "new").exists()


def test_a_stopped_export_keeps_its_wavs_for_the_next(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(data_set, "write_data_card", stop)
        with pytest.raises(KeyboardInterrupt):
            export_data_set(made, out, to="published")
    stamps = {path.name: path.stat().st_mtime_ns for path in (out / ".export.partial" / "audios").iterdir()}
    assert len(stamps) == 3
    export_data_set(made, out, to="published")
    assert {path.name: path.stat().st_mtime_ns for path in (out / "audios").iterdir()} == stamps
    check_whole(out, "published")


def test_files_of_others_are_never_touched(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    export_data_set(made, out, to="jsonl")
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "repository" / "data").mkdir(parents=True)
    (tmp_path / "repository" / "data" / "train-00000.parquet").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds data/train-00000\.parquet, which no export"):
        export_data_set(made, tmp_path / "repository", to="huggingface")
    assert files(tmp_path / "repository") == {"data/train-00000.parquet": b"mine"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        export_data_set(made, tmp_path / "file")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("# Mine")
    with pytest.raises(ConfigError, match=r"holds README\.md"):
        export_data_set(made, tmp_path / "own", to="csv")


def test_the_build_itself_is_no_place_for_an_export(made: Path) -> None:
    before = files(made)
    with pytest.raises(ConfigError, match="is the build itself"):
        export_data_set(made, made / ".." / "made", to="jsonl")
    assert files(made) == before
    export_data_set(made, made / "export", to="jsonl")
    assert {name: text for name, text in files(made).items() if not name.startswith("export/")} == before


def test_an_export_of_fewer_tracks_leaves_no_old_file(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    items = list(read_items(made / "items.jsonl"))
    export_items(lambda: items, out, to="published", run={})
    with staged(out, to="jsonl") as scratch:
        (scratch / "train.jsonl").write_text("{}\n")
    export_items(lambda: items[:1], out, to="published", run={})
    assert [path.name for path in (out / "audios").iterdir()] == ["000000.wav"]
    assert not (out / "train.jsonl").exists(), "of another format, and an export's own"


def test_an_export_of_an_earlier_version_is_replaced(made: Path, tmp_path: Path) -> None:
    export_data_set(made, tmp_path / "out", to="huggingface")
    (tmp_path / "out" / ".export.json").unlink()
    (tmp_path / "out" / "data" / "train-00001.parquet").write_text("old")
    export_data_set(made, tmp_path / "out", to="huggingface")
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["train-00000.parquet"]


def test_lists_of_others_name_no_file_outside(made: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    out = tmp_path / "out"
    export_data_set(made, out, to="csv")
    (out / ".export.json").write_text(json.dumps({"files": {"csv": ["../precious", "README.md", "musicqa.csv"]}}))
    export_data_set(made, out, to="csv")
    assert (tmp_path / "precious").is_file()
    track = Track("musicqa/../../x.wav", tmp_path / "corpus" / "c.wav")
    with pytest.raises(ExportError, match="outside of the export"):
        export_items(lambda: [DataSetItem(track, REPLY, "train")], tmp_path / "other", to="published", run={})


def test_an_import_is_found_from_anywhere_and_taken_from_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpora.tone(tmp_path / "wavs" / "a.wav")
    conversation = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]
    rows = [
        {"audio_name": "a.wav", "conversation": [{**conversation[0], "value": question}, conversation[1]]}
        for question in FIXED_QUESTIONS
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    assert command("import", "x.json", "--audio", "wavs", "--out", "in").exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [item.track.audio for item in read_items(Path("../in/items.jsonl"))] == [tmp_path / "wavs" / "a.wav"]
    (dataset,) = read_datasets([DatasetEntry(path=Path("../in/train.jsonl"))])
    assert len(dataset.examples) == 4
    Path("mine").mkdir()
    Path("mine/train.jsonl").write_text("mine")
    done = command("import", "../x.json", "--out", "mine")
    assert done.exit_code == 2
    assert "holds train.jsonl already" in done.output
    assert Path("mine/train.jsonl").read_text() == "mine"
    done = command("import", "../gone.json", "--out", "new")
    assert done.exit_code == 2
    assert not Path("new").exists()


def test_the_printed_commands_work_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    corpora.musiccaps(tmp_path / "my corpus", 3)
    done = command("build", "--source", "musiccaps", "--root", "my corpus", "--out", "it's, here: [1]")
    assert done.exit_code == 0, done.output
    assert "warning: no track for" in done.output
    train, export = (shlex.split(line.partition(": ")[2].strip()) for line in done.output.splitlines()[-2:])
    settings = load_config(train[train.index("--config") + 1], [train[train.index("--set") + 1]])
    (dataset,) = read_datasets(settings.data.train)
    assert len(dataset.examples) > 10
    assert read_datasets(load_config(train[train.index("--config") + 1]).data.train), "and without --set"
    assert export[:2] == ["mu-llama", "musicqa"]
    assert command(*export[2:]).exit_code == 0
    table = pyarrow.parquet.read_table(Path(export[-1]) / "data" / "train-00000.parquet")
    assert set(table["id"].to_pylist()) == {example.id.partition("#")[0] for example in dataset.examples}


def test_a_build_that_is_not_finished_is_not_exported(made: Path, tmp_path: Path) -> None:
    (made / "run.json").write_text(json.dumps({"settings": {}}))
    with pytest.raises(ConfigError, match="isn't finished; start the same"):
        export_data_set(made, tmp_path / "out")


@pytest.mark.parametrize("before", EXPORT_FORMATS)
@pytest.mark.parametrize("now", EXPORT_FORMATS)
def test_an_export_to_another_format_takes_the_earlier_ones_place(
    before: str, now: str, made: Path, tmp_path: Path
) -> None:
    export_data_set(made, tmp_path / "out", to=before)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    export_data_set(made, tmp_path / "out", to=now)
    export_data_set(made, tmp_path / "fresh", to=now)
    names = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")}
    assert names == {path.relative_to(tmp_path / "fresh") for path in (tmp_path / "fresh").rglob("*")} | {
        Path("notes.txt")
    }


def test_tracks_without_audio_are_left_out_of_every_export_and_counted(made: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus" / "b" / "13.wav").unlink()
    for to in ("published", "jsonl", "huggingface"):
        done = command("export", str(made), "--to", to, "--out", str(tmp_path / to), "--allow-missing-audio")
        assert (done.exit_code, "1 track without audio left out" in done.output) == (0, True), done.output
    rows = json.loads((tmp_path / "published" / "PretrainMusicQA.json").read_text())
    rows += json.loads((tmp_path / "published" / "FinetuneMusicQA.json").read_text())
    assert {row["audio_name"] for row in rows} == {"000000.wav", "000002.wav"}
    (dataset,) = read_datasets([DatasetEntry(path=tmp_path / "jsonl" / "train.jsonl")])
    assert len({example.audio for example in dataset.examples}) == 2
    table = pyarrow.parquet.read_table(tmp_path / "huggingface" / "data" / "train-00000.parquet")
    assert table["id"].to_pylist() == ["folder/0", "folder/2"]


def test_a_root_that_does_not_hold_the_audio_is_named(made: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").rename(tmp_path / "moved")
    (tmp_path / "empty").mkdir()
    done = command(
        "export", str(made), "--to", "jsonl", "--out", str(tmp_path / "out"), "--root", str(tmp_path / "empty")
    )
    assert done.exit_code == 2
    assert "empty doesn't hold them" in " ".join(done.output.split())
    assert "where the corpus is now" not in done.output
