"""Data files become examples: each format, what is bad in them, missing audio, and the validation split."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mu_llama.errors import ConfigError
from mu_llama.text.prompts import Turn
from mu_llama.training.config import DatasetEntry
from mu_llama.training.dataset import Dataset, detect_format, hold_out, read_datasets, read_rows
from mu_llama.training.example import BadRow, DataError, Example
from mu_llama.training.readers import FORMATS, DataFormat


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def write(path: Path, content: Any) -> Path:
    """Write a JSON list, or a list of lines as JSON lines if the name says so."""
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content), encoding="utf-8")
    return path


def sounds(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def read(path: Path, **settings: Any) -> tuple[Example, ...]:
    (dataset,) = read_datasets([DatasetEntry(path=path, **settings)])
    return dataset.examples


def test_musicqa_keeps_texts_and_may_have_turns_or_no_audio(tmp_path: Path) -> None:
    sounds(tmp_path / "audios", "1.wav")
    rows = [
        {"audio_name": "1.wav", "conversation": said("Q", "trailing blank ")},
        {"conversation": said("Q1", "A1", "Q2", ": A2")},
    ]
    examples = read(write(tmp_path / "Eval.json", rows))
    assert examples == (
        Example("Eval:1", (Turn("Q", "trailing blank "),), tmp_path / "audios" / "1.wav"),
        Example("Eval:2", (Turn("Q1", "A1"), Turn("Q2", ": A2")), None),
    )


def test_alpaca_is_text_only_and_its_input_follows_the_instruction(tmp_path: Path) -> None:
    rows = [{"instruction": "Add", "input": "1, 2", "output": "3"}, {"instruction": "Hi", "input": "", "output": "Ho"}]
    examples = read(write(tmp_path / "a.json", rows))
    assert [example.turns for example in examples] == [(Turn("Add\n\n1, 2", "3"),), (Turn("Hi", "Ho"),)]
    assert all(example.audio is None for example in examples)


OWN_ROWS = [
    {"id": "x", "audio": "1.wav", "turns": [{"question": "Q1", "answer": "A1"}, {"question": "Q2", "answer": "A2"}]},
    {"id": None, "audio": None, "question": "Q", "answer": "A", "group": "text"},
]


def native_examples(folder: Path, stem: str, place: int) -> tuple[Example, ...]:
    return (
        Example("x", (Turn("Q1", "A1"), Turn("Q2", "A2")), folder / "1.wav"),
        Example(f"{stem}:{place}", (Turn("Q", "A"),), None, "text"),
    )


def test_json_lines_have_a_long_and_a_short_form(tmp_path: Path) -> None:
    sounds(tmp_path / "sound", "1.wav")
    path = tmp_path / "own.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, OWN_ROWS)).encode())
    assert read(path, audio_folder=tmp_path / "sound") == native_examples(tmp_path / "sound", "own", 3)


def test_a_second_place_is_tried_where_audio_is_missing(tmp_path: Path) -> None:
    near, far = tmp_path / "near.wav", tmp_path / "elsewhere" / "far.wav"
    sounds(tmp_path, "near.wav")
    sounds(tmp_path / "elsewhere", "far.wav")
    rows = [
        {"audio": name, "audio_absolute": str(far), "question": "q", "answer": "a"} for name in ("near.wav", "gone")
    ]
    assert [example.audio for example in read(write(tmp_path / "x.jsonl", rows))] == [near, far]
    rows.append({"audio": "gone", "audio_absolute": str(tmp_path / "gone too"), "question": "q", "answer": "a"})
    with pytest.raises(DataError, match=rf"{tmp_path / 'gone'}\b"):
        read(write(tmp_path / "x.jsonl", rows))


def test_parquet_has_the_same_columns(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    sounds(tmp_path, "1.wav")
    # The first row has no question of its own, the second no turns: Parquet fills both with null.
    columns = {"id": ["x", None], "audio": ["1.wav", None], "group": [None, "text"]}
    columns |= {"turns": [OWN_ROWS[0]["turns"], None], "question": [None, "Q"], "answer": [None, "A"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "own.bin")
    assert read(tmp_path / "own.bin") == native_examples(tmp_path, "own", 2)
    (tmp_path / "own.bin").write_bytes((tmp_path / "own.bin").read_bytes()[:-20])
    with pytest.raises(DataError, match="can't be read as Parquet"):
        read(tmp_path / "own.bin")


def test_without_pyarrow_parquet_names_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="pip install pyarrow"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("PAR1...", "parquet"),
        ('\ufeff \n[\n {"audio_name": "a", "conversation" :', "musicqa"),
        ('[{"output": "say \\"conversation\\": now", "instruction": "x"', "alpaca"),
        ('{"audio": null', "jsonl"),
    ],
)
def test_the_format_is_recognized_by_content_not_name(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "data.txt"
    path.write_text(content, encoding="utf-8")
    assert detect_format(path) == expected


@pytest.mark.parametrize("content", [b"", b" \n\n", b"[]", b"\xef\xbb\xbf[ ]\n"])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"test.jsonl: is empty; .*leave the file out, or.*larger share"):
        read(tmp_path / "test.jsonl")
    with pytest.raises(DataError, match=r"test.jsonl: is (empty|no JSON|not JSON)"):
        read_datasets([DatasetEntry(path=tmp_path / "test.jsonl", format="musicqa")])


@pytest.mark.parametrize("content", [b"question,answer\n", b'[{"caption": 1}]', b"\xff\xfe\x00"])
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(DataError, match=r"data.json: begins like none of musicqa, alpaca, jsonl, parquet"):
        read(tmp_path / "data.json")


def test_all_bad_rows_of_all_files_come_in_one_error(tmp_path: Path) -> None:
    qa = [
        {"audio_name": 7, "conversation": said("Q", "A")},
        {"conversation": said("Q")},
        {"conversation": said("Q", "A", "Q", " ")},
        {"conversation": [{"from": "gpt", "value": "A"}, {"from": "human", "value": "Q"}]},
        "text",
    ]
    path = tmp_path / "own.jsonl"
    good = {"id": "a", "audio": None, "question": "Q", "answer": "A"}
    lines = [
        json.dumps(good),
        "{broken",
        json.dumps(good),
        json.dumps({"audio_name": "1.wav", "question": "Q", "answer": "A"}),
        json.dumps({"audio": None, "turns": []}),
        json.dumps({"audio": None, "question": "Q"}),
        json.dumps(good | {"turns": [{"question": "Q", "answer": "A"}]}),
    ]
    path.write_bytes("\n".join(lines).encode() + b'\n{"audio": "\xff"}')
    with pytest.raises(DataError) as caught:
        read_datasets(
            [
                DatasetEntry(path=write(tmp_path / "qa.json", qa)),
                DatasetEntry(path=path),
                DatasetEntry(path=tmp_path / "none.json"),
            ]
        )
    text = str(caught.value)
    for expected in (
        "none.json: can't be read (No such file or directory)",
        "12 bad rows;",
        "qa.json, item 1: audio_name is no path",
        "qa.json, item 2: conversation is no list of questions and answers",
        "qa.json, item 3: value is empty",
        "qa.json, item 4: part 1 of the conversation is not from 'human'",
        "qa.json, item 5: is no mapping",
        "own.jsonl, line 2: is not JSON",
        "own.jsonl, a: the id came before",
        "own.jsonl, line 4: audio is missing; give null",
        "own.jsonl, line 5: turns is no list",
        "own.jsonl, line 6: answer is missing",
        "own.jsonl, line 7: has turns and a question",
        "own.jsonl, line 8: is not JSON in UTF-8",
    ):
        assert expected in text, expected


def test_long_lists_of_bad_rows_are_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)25 bad rows.*item 20: .*and 5 more") as caught:
        read(write(tmp_path / "a.json", [{"conversation": []}] * 25))
    assert "item 21" not in str(caught.value)


def test_missing_audio_stops_or_is_dropped_and_counted(tmp_path: Path) -> None:
    sounds(tmp_path, "here.wav")
    rows = [{"audio_name": f"{n:02}.wav", "conversation": said("Q", "A")} for n in range(22) for _ in range(2)]
    rows += [{"audio_name": "here.wav", "conversation": said("Q", "A")}, {"conversation": said("Q", "A")}]
    entry = DatasetEntry(path=write(tmp_path / "a.json", rows))
    with pytest.raises(DataError, match=r"22 missing audio files.*skip_missing") as caught:
        read_datasets([entry])
    assert str(tmp_path / "19.wav") in str(caught.value)
    assert "20.wav" not in str(caught.value)
    assert "and 2 more" in str(caught.value)
    (dataset,) = read_datasets([entry], skip_missing=True)
    assert (len(dataset.examples), dataset.num_missing) == (2, 44)
    only_missing = DatasetEntry(path=write(tmp_path / "b.json", rows[:2]))
    with pytest.raises(DataError, match="has no example whose audio is there"):
        read_datasets([only_missing], skip_missing=True)


@pytest.mark.parametrize(("written", "on_disk"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_audio_may_have_another_unicode_form(written: str, on_disk: str, tmp_path: Path) -> None:
    (tmp_path / on_disk).mkdir()
    sounds(tmp_path / on_disk, f"{on_disk}.wav")
    row = {"audio": f"{written}/{written}.wav", "question": "Q", "answer": "A"}
    (dataset,) = read_datasets([DatasetEntry(path=write(tmp_path / "a.jsonl", [row]))])
    assert dataset.examples[0].audio == tmp_path / on_disk / f"{on_disk}.wav"


def test_files_of_the_same_bytes_are_split_together(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.wav").write_bytes(b"%02d" % (number // 2))
    examples = tuple(Example(str(n), (Turn("Q", "A"),), tmp_path / f"{n}.wav") for n in range(20))
    _, validation = hold_out(
        [Dataset(DatasetEntry(path=Path("a")), examples, num_missing=0, sha256="")], fraction=0.3, seed=0
    )
    assert len(validation) == 6
    numbers = {int(example.id) for example in validation}
    assert {number ^ 1 for number in numbers} == numbers


def test_ids_are_unique_over_data_sets(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    row = {"audio": None, "question": "Q", "answer": "A"}
    paths = [write(tmp_path / name / "train.jsonl", [row, row | {"id": name}]) for name in ("a", "b")]
    datasets = read_datasets([DatasetEntry(path=path) for path in paths])
    ids = [example.id for dataset in datasets for example in dataset.examples]
    assert ids == ["0/train:1", "a", "1/train:1", "b"]
    assert datasets[0].sha256 != datasets[1].sha256


def test_the_split_keeps_questions_of_a_track_together() -> None:
    examples = [Example(f"{n}.{q}", (Turn("Q", "A"),), Path(f"{n}.wav")) for n in range(20) for q in range(3)]
    examples += [Example(f"text{n}", (Turn("Q", "A"),)) for n in range(20)]
    halves = [
        Dataset(DatasetEntry(path=Path(name)), tuple(part), num_missing=0, sha256="")
        for name, part in (("a", examples[:31]), ("b", examples[31:]))  # track 10 is in both
    ]
    rest, validation = hold_out(halves, fraction=0.25, seed=1)
    train = [example for dataset in rest for example in dataset.examples]
    assert sorted(example.id for example in [*train, *validation]) == sorted(example.id for example in examples)
    tracks = {example.audio or example.id for example in validation}
    assert len(tracks) == 10
    assert not tracks & {example.audio or example.id for example in train}
    assert hold_out(halves, fraction=0.25, seed=1)[1] == validation
    assert hold_out(halves, fraction=0.25, seed=2)[1] != validation
    with pytest.raises(DataError, match="leaves none to train on"):
        hold_out([Dataset(halves[0].entry, (examples[0],), num_missing=0, sha256="")], fraction=0.1, seed=0)


def test_ids_of_any_bytes_can_be_split(tmp_path: Path) -> None:
    """Names of files that are no text become ids."""
    rows = [{"id": f"\udcff {number}", "audio": None, "question": "Q", "answer": "A"} for number in range(4)]
    datasets = read_datasets([DatasetEntry(path=write(tmp_path / "rows.jsonl", rows))])
    (train,), validation = hold_out(datasets, fraction=0.25, seed=0)
    assert (len(train.examples), len(validation)) == (3, 1)


def test_a_format_is_one_function_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader put into the registry is accepted in settings, recognized by its beginning, and read."""

    def read_pairs(path: Path, *, audio_folder: Path) -> Iterator[Example | BadRow]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], start=1):
            audio, question, answer = line.split("\t")
            yield Example(f"{path.stem}:{number}", (Turn(question, answer),), audio_folder / audio)

    monkeypatch.setitem(FORMATS, "pairs", DataFormat(read_pairs, start="#pairs", audio_subfolder="sound"))
    path = tmp_path / "mine.txt"
    path.write_text("#pairs\na.wav\tWhat is it?\tA tone.\n")
    sounds(tmp_path / "sound", "a.wav")
    expected = (Example("mine:1", (Turn("What is it?", "A tone."),), tmp_path / "sound" / "a.wav"),)
    assert read(path) == expected
    assert tuple(read_rows(DatasetEntry(path=path, format="pairs"))) == expected
    monkeypatch.delitem(FORMATS, "pairs")
    with pytest.raises(ConfigError, match="format: is 'pairs'; expected one of auto, musicqa, alpaca, jsonl, parquet"):
        DatasetEntry(path=path, format="pairs")


def test_a_folder_and_a_git_lfs_pointer_are_named_as_such(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [])
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(DataError, match=r"is a folder; name a data file in it: train\.jsonl$"):
        read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"it holds no \.json or \.jsonl or \.parquet"):
        read(tmp_path / "empty")
    pointer = tmp_path / "pointer.parquet"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    for settings in ({}, {"format": "parquet"}, {"format": "jsonl"}):
        with pytest.raises(DataError, match="git lfs pull"):
            read(pointer, **settings)
