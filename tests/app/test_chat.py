"""What the demo does, without a browser: tracks, conversations, limits, likes, batches."""

from __future__ import annotations

import csv
import itertools
import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mu_llama.app.batch import answer_files, write_rows
from mu_llama.app.chat import Desk, Limits, Stopped, clock, turns_of
from mu_llama.app.pictures import mel_picture
from mu_llama.encoders.musicnn import build_musicnn
from mu_llama.errors import AudioError, QuestionError
from mu_llama.generation import GenerationOptions
from mu_llama.listener import Listener
from mu_llama.prompts import Turn

SHORT = GenerationOptions(max_new_tokens=12)


@pytest.fixture
def desk(tiny: Listener, tmp_path: Path) -> Desk:
    return Desk(tiny, limits=Limits(most_mb=1, most_minutes=1.0, most_tracks=3), likes=tmp_path / "likes.jsonl")


def last(desk: Desk, token: str, *turns: Turn) -> str:
    return list(desk.stream(token, turns, options=SHORT))[-1]


def test_an_answer_grows_and_equals_ask(desk: Desk, tracks: list[Path]) -> None:
    held = desk.take(tracks[0])
    texts = list(desk.stream(held.token, [Turn("What is this?")], options=SHORT))
    assert len(texts) > 1
    assert all(later.startswith(earlier.rstrip("\ufffd")) for earlier, later in itertools.pairwise(texts))
    assert texts[-1] == desk.listener.ask(tracks[0], "What is this?", options=SHORT).text


def test_what_was_said_before_is_in_the_prompt(desk: Desk, tracks: list[Path]) -> None:
    held = desk.take(tracks[0])
    chat = desk.listener.chat(tracks[0], options=SHORT)
    first = chat.ask("What is this?").text
    assert last(desk, held.token, Turn("What is this?", first), Turn("Why?")) == chat.ask("Why?").text


def test_sessions_do_not_mix(desk: Desk, tracks: list[Path]) -> None:
    held = [desk.take(path) for path in tracks]
    wanted = [desk.listener.ask(path, "What is this?", options=SHORT).text for path in tracks]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda one: last(desk, one.token, Turn("What is this?")), held * 2))
    assert answers == wanted * 2
    assert len(set(wanted)) > 1
    assert len({one.token for one in held}) == 3


def test_stopping_ends_the_computation(desk: Desk, tracks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    held, stopped = desk.take(tracks[0]), Stopped()
    written: list[int] = []
    model = desk.listener.opened.model
    forward = model.forward

    def counting(*args: object, **kwargs: object) -> object:
        written.append(1)
        return forward(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "forward", counting)
    stream = desk.stream(held.token, [Turn("What is this?")], options=SHORT, stopped=stopped)
    next(stream)
    stopped.stop()
    assert len(list(stream)) <= 1
    after_stop = len(written)
    assert after_stop < SHORT.max_new_tokens
    assert deepcopy(stopped) is not stopped  # sessions don't stop each other
    closed = desk.stream(held.token, [Turn("What is this?")], options=SHORT)
    next(closed)
    before = len(written)
    closed.close()  # type: ignore[attr-defined]
    assert len(written) == before


def test_the_least_used_track_goes_first(desk: Desk, tracks: list[Path]) -> None:
    first, second, _third = (desk.take(path) for path in tracks)
    desk.held(first.token)
    desk.take(tracks[0])
    assert desk.held(first.token) is first
    with pytest.raises(AudioError, match="no longer held, others came after it; upload it again"):
        desk.held(second.token)
    desk.drop(first.token)
    with pytest.raises(AudioError, match="upload it again"):
        next(desk.stream(first.token, [Turn("What?")], options=SHORT))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("no sound at all"), "a.wav"),
        (lambda path: path.write_bytes(b""), "a.wav"),
        (lambda path: soundfile.write(path, np.zeros(16000), 16000), "silent"),
        (lambda path: soundfile.write(path, np.full(16000 * 61, 0.1), 16000), "MB, the most is 1"),
        (lambda path: soundfile.write(path, np.full(8000 * 61, 0.1), 8000, subtype="PCM_U8"), "the most is 1; cut it"),
    ],
    ids=["text", "empty", "silent", "large", "long"],
)
def test_bad_files_are_refused_in_one_sentence(desk: Desk, tmp_path: Path, write, message: str) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=message) as raised:
        desk.take(tmp_path / "a.wav")
    assert "\n" not in str(raised.value)


def test_asking_without_track_or_words(desk: Desk, tracks: list[Path]) -> None:
    with pytest.raises(AudioError, match="upload, record or pick one first"):
        next(desk.stream("", [Turn("What?")], options=SHORT))
    with pytest.raises(AudioError, match="upload, record or pick one first"):
        desk.take(None)
    held = desk.take(tracks[0])
    with pytest.raises(QuestionError, match="empty"):
        next(desk.stream(held.token, [Turn("  ")], options=SHORT))
    with pytest.raises(AudioError, match="gone"):
        desk.take(tracks[0].with_name("gone.wav"))


def test_likes_are_saved_on_request(desk: Desk, tiny: Listener, tracks: list[Path], tmp_path: Path) -> None:
    held = desk.take(tracks[0])
    desk.like(token=held.token, question="Q", answer="Ä", liked=True)
    desk.like(token=held.token, question="Q", answer="Ä", liked=None)
    rows = [json.loads(line) for line in (tmp_path / "likes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["answer"], row["liked"], row["audio"]) for row in rows] == [
        ("Ä", True, tracks[0].name), ("Ä", None, tracks[0].name),
    ]  # fmt: skip
    silent = Desk(tiny)
    assert not silent.keeps_likes
    silent.like(token="", question="Q", answer="A", liked=True)
    broken = Desk(tiny, likes=tmp_path / "no" / "such.jsonl")
    with pytest.raises(QuestionError, match="can't be written"):
        broken.like(token=broken.take(tracks[0]).token, question="Q", answer="A", liked=False)


def test_the_line_says_what_was_heard_and_who_answers(desk: Desk, tracks: list[Path]) -> None:
    line = desk.heard_in_words(desk.take(tracks[1]))
    assert line.startswith(f"Heard 0:00-0:02 of {tracks[1].name}. ")
    assert desk.listener.name in line


def test_tags_are_the_taggers_own(desk: Desk, tracks: list[Path]) -> None:
    held = desk.take(tracks[0])
    assert held.tags == {}  # MERT has no tagger
    encoder = build_musicnn()
    wave = np.sin(np.arange(16000 * 4) / 9).astype(np.float32)
    from mu_llama.audio.waveform import Waveform

    values = encoder.encode(Waveform(wave, 16000))
    tags = encoder.tag_probabilities(values)
    heard = encoder.listen(Waveform(wave, 16000)).averaged().tag_logits[0].sigmoid()
    assert tags == pytest.approx(dict(zip(encoder.tag_names, heard.tolist(), strict=True)), abs=1e-5)
    assert list(tags.values()) == sorted(tags.values(), reverse=True)
    words = desk.top_tags(replace(held, tags={"msd:Metal": 0.9, "mtt:metal": 0.5, "mtt:loud": 0.4}))
    assert words == {"metal": 0.9, "loud": 0.4}
    assert build_musicnn(parts=("penultimate",)).tag_probabilities(values) == {}


def test_the_picture_shows_pitch_upwards(tmp_path: Path) -> None:
    time_s = np.arange(16000 * 3) / 16000
    for name, hertz in (("low", 200), ("high", 5000)):
        soundfile.write(tmp_path / f"{name}.wav", 0.5 * np.sin(2 * np.pi * hertz * time_s), 16000)
    low, high = (mel_picture(tmp_path / f"{name}.wav").sum(axis=(1, 2)).argmax() for name in ("low", "high"))
    picture = mel_picture(tmp_path / "low.wav")
    assert picture.dtype == np.uint8
    assert picture.shape[0] == 192
    assert low > high


def test_messages_become_turns() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "One?"}]}, {"role": "assistant", "content": "1."},
        {"role": "user", "content": "Two?"},
    ]  # fmt: skip
    assert turns_of(messages) == [Turn("One?", "1."), Turn("Two?")]
    assert turns_of(messages, upto=1) == [Turn("One?")]
    assert clock(3600) == "60:00"


def test_a_batch_answers_what_it_can(desk: Desk, tracks: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "=bad.wav"
    bad.write_text("nothing")
    steps = list(answer_files(desk, [str(tracks[0]), str(bad), str(tracks[1])], ["One?", " ", "Two?"], options=SHORT))
    assert [done for done, _ in steps] == [1, 2, 3]
    rows = steps[-1][1]
    assert [(name, bool(answer), bool(error)) for name, _, answer, error in rows] == [
        (tracks[0].name, True, False), (tracks[0].name, True, False), ("=bad.wav", False, True),
        ("=bad.wav", False, True), (tracks[1].name, True, False), (tracks[1].name, True, False),
    ]  # fmt: skip
    assert rows[0][2] == desk.listener.ask(tracks[0], "One?", options=SHORT).text
    with (write_rows(rows, tmp_path, "csv")).open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["file", "question", "answer", "error"]
    assert table[3][0] == "'=bad.wav"
    lines = write_rows(rows, tmp_path, "jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["answer"] == rows[0][2]
    with zipfile.ZipFile(write_rows(rows, tmp_path, "zip")) as archive:
        assert sorted(archive.namelist()) == sorted(f"{path.stem}.txt" for path in tracks[:2])


def test_tracks_of_one_name_keep_their_texts_apart(tmp_path: Path) -> None:
    rows = [
        ("a.wav", "Q", "one", ""),
        ("a.mp3", "Q", "two", ""),
        ("b.mp3", "Q", "three", ""),
        ("c.ogg", "Q", "", "bad"),
    ]
    with zipfile.ZipFile(write_rows(rows, tmp_path, "zip")) as archive:
        assert sorted(archive.namelist()) == ["a.mp3.txt", "a.wav.txt", "b.txt"]
        assert archive.read("a.wav.txt") == b"one\n"


def test_a_batch_stops_between_files(desk: Desk, tracks: list[Path]) -> None:
    stop = threading.Event()
    steps = answer_files(desk, [str(path) for path in tracks], ["One?"], options=SHORT, stopped=stop.is_set)
    next(steps)
    stop.set()
    assert list(steps) == []
    with pytest.raises(AudioError, match="no files yet"):
        next(answer_files(desk, [], ["One?"], options=SHORT))
    with pytest.raises(QuestionError, match="no question yet"):
        next(answer_files(desk, ["a.wav"], ["  "], options=SHORT))
