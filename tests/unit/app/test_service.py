"""What the demo does, without a browser: tracks, conversations, limits, likes, batches."""

from __future__ import annotations

import csv
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mu_llama.app.assets import mel_picture
from mu_llama.app.batch import BatchRequest, TableRow, answer_files, save_rows
from mu_llama.app.callbacks import Callbacks
from mu_llama.app.service import ComputeThread, DemoService, Limits
from mu_llama.app.session import DemoSession
from mu_llama.audio.waveform import Waveform
from mu_llama.audio.windows import WindowChoice
from mu_llama.encoders.musicnn.encoder import build_musicnn
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.engine.torch.engine import TorchRows
from mu_llama.errors import AudioError, QuestionError
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.inference.listener import Listener
from mu_llama.inference.results import Answer, EncodedTrack, compute_steps
from mu_llama.model.retrieval import BlendOptions, NeighbourBlend
from mu_llama.text.prompts import Turn

SHORT = GenerationOptions(max_new_tokens=12)


@pytest.fixture
def service(tiny: Listener, tmp_path: Path) -> DemoService:
    return DemoService(tiny, limits=Limits(max_mb=1, max_minutes=1.0, max_tracks=3), likes=tmp_path / "likes.jsonl")


def session_with(service: DemoService, path: Path) -> DemoSession:
    session = DemoSession()
    session.handle = service.add(path)
    return session


def last(service: DemoService, session: DemoSession, question: str, **more: Any) -> str:
    *_, turns = service.ask(session, question, options=SHORT, **more)
    return turns[-1].answer or ""


def test_an_answer_grows_and_equals_ask(service: DemoService, tracks: list[Path]) -> None:
    session = session_with(service, tracks[0])
    steps = [list(turns) for turns in service.ask(session, "What is this?", options=SHORT)]
    assert steps[0] == [Turn("What is this?")]  # the question is shown at once
    texts = [turns[0].answer or "" for turns in steps[1:]]
    assert len(texts) > 1
    assert all(later.startswith(earlier.rstrip("\ufffd")) for earlier, later in pairwise(texts))
    assert texts[-1] == service.listener.ask(tracks[0], "What is this?", options=SHORT).text
    assert session.turns == [Turn("What is this?", texts[-1])]


def test_what_was_said_before_is_in_the_prompt(service: DemoService, tracks: list[Path]) -> None:
    session, chat = session_with(service, tracks[0]), service.listener.chat(tracks[0], options=SHORT)
    assert last(service, session, "What is this?") == chat.ask("What is this?").text
    assert last(service, session, "Why?") == chat.ask("Why?").text
    assert last(service, session, "Who?", keep=0) == service.listener.ask(tracks[0], "Who?", options=SHORT).text
    assert len(session.turns) == 1


def test_sessions_do_not_mix(service: DemoService, tracks: list[Path]) -> None:
    sessions = [session_with(service, path) for path in tracks]
    wanted = [service.listener.ask(path, "What is this?", options=SHORT).text for path in tracks]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda session: last(service, session, "What is this?"), sessions))
    assert answers == wanted
    assert len(set(wanted)) > 1
    assert len({session.token for session in sessions}) == 3


@pytest.fixture
def forwards(service: DemoService, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each forward pass of the model."""
    passes: list[int] = []
    model = service.listener.opened.engine.model
    forward = model.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    return passes


@pytest.mark.parametrize("overtake", ["stop", "clear_turns", "begin_run"])
def test_what_is_overtaken_computes_and_says_nothing_more(
    service: DemoService, tracks: list[Path], forwards: list[int], overtake: str
) -> None:
    session = session_with(service, tracks[0])
    stream = service.ask(session, "What is this?", options=SHORT)
    next(stream)
    next(stream)
    getattr(session, overtake)()
    said = list(session.turns)
    assert list(stream) == []
    assert session.turns == said
    assert len(forwards) < SHORT.max_new_tokens
    assert deepcopy(session) is not session  # sessions don't stop each other


def test_closing_ends_the_computation(service: DemoService, tracks: list[Path], forwards: list[int]) -> None:
    stream = service.ask(session_with(service, tracks[0]), "What is this?", options=SHORT)
    next(stream)
    next(stream)
    before = len(forwards)
    stream.close()  # type: ignore[attr-defined]
    assert len(forwards) == before


def test_a_newer_question_wins(service: DemoService, tracks: list[Path]) -> None:
    session = session_with(service, tracks[0])
    first = service.ask(session, "What is this?", options=SHORT)
    next(first)
    second = last(service, session, "Why?")
    assert list(first) == []
    assert session.turns[-1] == Turn("Why?", second)


def test_a_question_while_the_track_is_being_heard_says_so(service: DemoService, tracks: list[Path]) -> None:
    session = session_with(service, tracks[0])
    session.is_encoding = True
    with pytest.raises(AudioError, match="still being read; ask again in a moment"):
        next(service.ask(session, "What?", options=SHORT))


def test_a_new_conversation_while_an_answer_begins_stays_new(
    service: DemoService, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_with(service, tracks[0])
    last(service, session, "What is this?")
    stream = service.listener.stream_turns

    def slowly(*values: object, **named: object) -> object:
        session.clear_turns()
        return stream(*values, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(service.listener, "stream_turns", slowly)
    assert list(service.ask(session, "Why?", options=SHORT)) == []
    assert session.turns == []


def test_all_windows_share_the_encoder_of_the_listener(service: DemoService, tiny: Listener) -> None:
    assert service.listener.extractor.encoder is tiny.extractor.encoder


def test_all_is_computed_in_one_thread(
    service: DemoService, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: set[int] = set()
    model, encoder = service.listener.opened.engine.model, service.listener.extractor.encoder

    def spied(function: Any, *values: Any, **named: Any) -> Any:
        used.add(threading.get_ident())
        return function(*values, **named)

    for owner, name in ((model, "forward"), (model, "condition"), (encoder, "encode")):
        monkeypatch.setattr(owner, name, partial(spied, getattr(owner, name)))
    sessions = [session_with(service, path) for path in tracks[:2]]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda session: last(service, session, "What is this?"), sessions))
    list(batch(service, DemoSession(), [str(tracks[2])], ["One?"]))
    assert used == {service.compute.run(threading.get_ident)}
    assert threading.get_ident() not in used


def test_what_stands_before_the_next_question_is_read_ahead(
    service: DemoService, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[EncodedTrack, list[Turn], int]] = []
    monkeypatch.setattr(
        service.listener, "read_ahead", lambda track, turns: read.append((track, turns, threading.get_ident()))
    )
    compute, session, page = service.compute.run(threading.get_ident), DemoSession(), Callbacks(service, pytest.fail)
    page.load_track(str(tracks[0]), session, "auto")
    held = session.handle
    assert held is not None
    service.compute.run(lambda: None)
    answer = last(service, session, "What is this?")
    service.compute.run(lambda: None)
    assert read == [(held.track, [], compute), (held.track, [Turn("What is this?", answer)], compute)]


def test_what_was_overtaken_is_not_read_ahead(
    service: DemoService, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    monkeypatch.setattr(service.listener, "read_ahead", lambda *values: read.append(values))
    busy = threading.Event()

    def meanwhile(session: DemoSession, change: Callable[[], object]) -> None:
        busy.clear()
        service.compute.later(busy.wait)
        service.read_ahead(session)
        change()
        busy.set()
        service.compute.run(lambda: None)

    session = session_with(service, tracks[0])
    meanwhile(session, session.clear_turns)
    meanwhile(session, lambda: session.set_turns(session.begin_run(), []))
    meanwhile(session, lambda: session.expect_track(is_coming=True))
    meanwhile(DemoSession(), lambda: None)
    assert read == []


def test_what_fails_ahead_is_logged_and_nothing_else(service: DemoService, caplog: pytest.LogCaptureFixture) -> None:
    service.compute.later(lambda: 1 // 0)
    assert service.compute.run(lambda: 3) == 3
    assert "ZeroDivisionError" in caplog.text


def test_one_thread_gives_results_and_errors_and_lets_others_between() -> None:
    thread = ComputeThread()
    assert thread.run(lambda: thread.run(lambda: 3)) == 3
    steps = compute_steps(iter([1, 2]), thread.run)
    assert next(steps) == 1
    assert thread.run(lambda: "between") == "between"
    assert list(steps) == [2]
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 // 0)


def test_the_least_used_track_goes_first(service: DemoService, tracks: list[Path]) -> None:
    first, second, _third = (session_with(service, path) for path in tracks)
    service.handle(first.token)
    session_with(service, tracks[0])
    assert service.handle(first.token) is first.handle
    with pytest.raises(AudioError, match="dropped, because newer tracks came; upload it again"):
        last(service, second, "What?")
    service.drop(first.token)
    with pytest.raises(AudioError, match="upload it again"):
        last(service, first, "What?")


def test_another_window_hears_other_seconds(tiny: Listener, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", rng.normal(0, 0.1, 16000 * 70), 16000)
    service = DemoService(tiny)
    assert service.add(tmp_path / "long.wav").track.spans == ((0.0, 60.0),)
    assert max(end for _, end in service.add(tmp_path / "long.wav", window="full").track.spans) == 70.0


def test_the_weight_of_neighbours_is_each_visitors_own(tiny: Listener, tracks: list[Path]) -> None:
    size = tiny.listen(tracks[0]).features.shape[-1]  # type: ignore[union-attr]
    vectors = np.random.default_rng(0).standard_normal((16, size), np.float32)
    options = BlendOptions(weight=0.2, num_neighbours=4)
    blended = Listener(tiny.opened, extractor=tiny.extractor, blend=NeighbourBlend(vectors, options))
    service = DemoService(blended)
    session = session_with(service, tracks[0])
    assert session.handle is not None
    plain = tiny.listen(tracks[0]).conditioning
    own, none = (
        service.listener.with_blend(session.handle.track, 0.2),
        service.listener.with_blend(session.handle.track, 0.0),
    )
    assert own is session.handle.track
    assert none.prefix is not own.prefix, "what the model made of other audio tokens"
    np.testing.assert_allclose(none.conditioning, plain, rtol=1e-4, atol=1e-5)
    assert not np.allclose(own.conditioning, plain)
    assert last(service, session, "What?", knn_weight=0.0) == tiny.ask(tracks[0], "What?", options=SHORT).text


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
def test_bad_files_are_refused_in_one_sentence(service: DemoService, tmp_path: Path, write, message: str) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=message) as raised:
        service.add(tmp_path / "a.wav")
    assert "\n" not in str(raised.value)


def test_asking_without_track_or_words(service: DemoService, tracks: list[Path]) -> None:
    with pytest.raises(AudioError, match="upload, record or pick one first"):
        last(service, DemoSession(), "What?")
    with pytest.raises(AudioError, match="upload, record or pick one first"):
        service.add(None)
    session = session_with(service, tracks[0])
    last(service, session, "What?")
    said = list(session.turns)
    with pytest.raises(QuestionError, match="empty"):
        last(service, session, "  ")
    assert session.turns == said
    with pytest.raises(AudioError, match="gone"):
        service.add(tracks[0].with_name("gone.wav"))


def test_a_file_that_does_not_say_its_length_is_not_heard_to_its_end(
    service: DemoService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 8000 * 90), 8000)
    asked: list[object] = []
    extract = FeatureExtractor.extract

    def counting(self: FeatureExtractor, audio: Any, **more: Any) -> Any:
        asked.append(more["options"].duration_s)
        return extract(self, audio, **more)

    monkeypatch.setattr(FeatureExtractor, "extract", counting)
    monkeypatch.setattr(service, "_check", lambda path: None)
    with pytest.raises(AudioError, match="cut it"):
        service.add(tmp_path / "a.flac", window="full")
    assert asked == [61.0]


def test_likes_are_saved_on_request(service: DemoService, tiny: Listener, tracks: list[Path], tmp_path: Path) -> None:
    session = session_with(service, tracks[0])
    session.turns = [Turn("Q", "\u00c4")]
    service.like(session, 0, True)
    service.drop(session.token)  # others came after it
    service.like(session, 0, None)
    with pytest.raises(QuestionError, match="no longer in the conversation"):
        service.like(session, 5, True)
    rows = [json.loads(line) for line in (tmp_path / "likes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["answer"], row["liked"], row["audio"]) for row in rows] == [
        ("\u00c4", True, tracks[0].name), ("\u00c4", None, tracks[0].name),
    ]  # fmt: skip
    silent = DemoService(tiny)
    assert not silent.stores_likes
    silent.like(session, 0, True)
    with pytest.raises(QuestionError, match="can't be written"):
        DemoService(tiny, likes=tmp_path / "no" / "such.jsonl").like(session, 0, False)


def test_the_line_says_what_was_heard_and_who_answers(service: DemoService, tracks: list[Path]) -> None:
    line = service.describe(service.add(tracks[1]))
    assert line.startswith(f"Listened to 0:00-0:02 of {tracks[1].name}. ")
    assert service.listener.name in line


def test_tags_are_the_taggers_own(service: DemoService, tracks: list[Path]) -> None:
    held = service.add(tracks[0])
    assert held.tags == {}  # MERT has no tagger
    encoder = build_musicnn()
    wave = np.sin(np.arange(16000 * 4) / 9).astype(np.float32)
    values = encoder.encode(Waveform(wave, 16000))
    tags = encoder.tag_probabilities(values)
    expected = encoder.encode_patches(Waveform(wave, 16000)).averaged().tag_logits[0]
    assert tags == pytest.approx(
        dict(zip(encoder.tag_names, (1 / (1 + np.exp(-expected))).tolist(), strict=True)), abs=1e-5
    )
    assert list(tags.values()) == sorted(tags.values(), reverse=True)
    words = service.top_tags(replace(held, tags={"msd:Metal": 0.9, "mtt:metal": 0.5, "mtt:loud": 0.4}))
    assert words == {"metal": 0.9, "loud": 0.4}
    assert build_musicnn(parts=("penultimate",)).tag_probabilities(values) == {}


def test_the_picture_shows_pitch_upwards(tiny: Listener, tmp_path: Path) -> None:
    time_s = np.arange(16000 * 3) / 16000
    for name, hertz in (("low", 200), ("high", 5000)):
        soundfile.write(tmp_path / f"{name}.wav", 0.5 * np.sin(2 * np.pi * hertz * time_s), 16000)
    low, high = (
        mel_picture(tmp_path / f"{name}.wav", tiny).image.sum(axis=(1, 2)).argmax() for name in ("low", "high")
    )
    picture = mel_picture(tmp_path / "low.wav", tiny).image
    assert picture.dtype == np.uint8
    assert picture.shape[0] == 192
    assert low > high


def batch(
    service: DemoService, session: DemoSession, paths: list[str], questions: list[str]
) -> Iterator[tuple[int, list[TableRow]]]:
    return answer_files(service, session, paths, BatchRequest(questions, SHORT), run=session.begin_run())


def test_a_batch_answers_what_it_can(service: DemoService, tracks: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "=bad.wav"
    bad.write_text("nothing")
    paths = [str(tracks[0]), str(bad), str(tracks[1])]
    steps = list(batch(service, DemoSession(), paths, ["One?", " ", "Two?"]))
    assert steps[-1][0] == 3
    rows = steps[-1][1]
    assert [(name, bool(answer), bool(error)) for name, _, answer, error in rows] == [
        (tracks[0].name, True, False), (tracks[0].name, True, False), ("=bad.wav", False, True),
        ("=bad.wav", False, True), (tracks[1].name, True, False), (tracks[1].name, True, False),
    ]  # fmt: skip
    assert rows[0][2] == service.listener.ask(tracks[0], "One?", options=SHORT).text
    assert str(tmp_path) not in rows[2][3]
    with (save_rows(rows, tmp_path, "csv")).open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["file", "question", "answer", "error"]
    assert table[3][0] == "'=bad.wav"
    lines = save_rows(rows, tmp_path, "jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["answer"] == rows[0][2]
    with zipfile.ZipFile(save_rows(rows, tmp_path, "zip")) as archive:
        assert sorted(archive.namelist()) == sorted(f"{path.stem}.txt" for path in tracks[:2])
        assert archive.read(f"{tracks[0].stem}.txt").decode().startswith("One?\n")


def test_tracks_of_one_name_keep_their_texts_apart(service: DemoService, tracks: list[Path], tmp_path: Path) -> None:
    rows = [
        ("a.wav", "Q", "one", ""),
        ("a.mp3", "Q", "two", ""),
        ("b.mp3", "Q", "three", ""),
        ("c.ogg", "Q", "", "bad"),
    ]
    with zipfile.ZipFile(save_rows(rows, tmp_path, "zip")) as archive:
        assert sorted(archive.namelist()) == ["a.mp3.txt", "a.wav.txt", "b.txt"]
        assert archive.read("a.wav.txt") == b"one\n"
    copies = [tmp_path / folder / "01.wav" for folder in ("cd1", "cd2")]
    for copy, track in zip(copies, tracks, strict=False):
        copy.parent.mkdir()
        copy.write_bytes(track.read_bytes())
    *_, (_, found) = batch(service, DemoSession(), [str(copy) for copy in copies], ["One?"])
    assert [row[0] for row in found] == ["01.wav", "01 (2).wav"]


def test_a_batch_stops_at_the_next_word(service: DemoService, tracks: list[Path], forwards: list[int]) -> None:
    session = DemoSession()
    steps = batch(service, session, [str(path) for path in tracks], ["One?", "Two?"])
    assert next(steps) == (0, [])
    session.stop()
    before = len(forwards)
    assert list(steps) == []
    assert len(forwards) == before
    run = session.begin_run()
    waiting = answer_files(service, session, [str(tracks[0])], BatchRequest(["One?"], SHORT), run=run)
    session.stop()  # pressed while it waits in the queue
    assert list(waiting) == []
    assert len(forwards) == before


def test_a_stop_gives_the_answers_that_were_finished(
    service: DemoService, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = DemoSession()

    def spied(*values: Any, **named: Any) -> Answer:
        session.stop()
        return Answer(*values, **named)

    monkeypatch.setattr("mu_llama.inference.answering.Answer", spied)
    steps = list(batch(service, session, [str(path) for path in tracks], ["One?"]))
    done, rows = steps[-1]
    assert 0 < done == len(rows) < len(tracks)
    assert rows[0][2]
    assert rows[0][3] == ""


def test_a_batch_writes_several_rows_at_once_and_they_equal_ask(
    service: DemoService, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def spied(rows: TorchRows, tokens: dict[int, int]) -> Any:
        sizes.append(len(tokens))
        return step(rows, tokens)

    step = TorchRows.step
    monkeypatch.setattr(TorchRows, "step", spied)
    questions = ["One?", "Two?", "Three?", "Four?"]
    *_, (done, rows) = batch(service, DemoSession(), [str(path) for path in tracks], questions)
    assert max(sizes) == 8
    assert done == len(tracks) == 3
    alone = [service.listener.ask(path, question, options=SHORT).text for path in tracks for question in questions]
    assert [row[2] for row in rows] == alone


def test_the_batch_hears_the_seconds_that_are_set(
    service: DemoService, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = []

    def spied(path: str, window: WindowChoice) -> EncodedTrack:
        windows.append(window)
        return DemoService.encode(service, path, window=window)

    monkeypatch.setattr(service, "encode", spied)
    session = DemoSession()
    list(
        answer_files(
            service, session, [str(tracks[0])], BatchRequest(["One?"], SHORT, "published"), run=session.begin_run()
        )
    )
    assert windows == ["published"]


def test_a_batch_says_what_is_missing(service: DemoService) -> None:
    session = DemoSession()
    with pytest.raises(AudioError, match="no files yet"):
        next(batch(service, session, [], ["One?"]))
    with pytest.raises(QuestionError, match="no question yet"):
        next(batch(service, session, ["a.wav"], ["  "]))
    with pytest.raises(QuestionError, match="the most is 2000; drop fewer"):
        next(batch(service, session, ["a.wav"] * 1001, ["One?", "Two?"]))
