"""The page's callbacks, called as gradio calls them, and the command that serves it."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from mu_llama.app.batch import save_all
from mu_llama.app.callbacks import Callbacks
from mu_llama.app.page import (
    Serving,
    _ask_from_box,
    build_page,
    reach_past_proxies,
    serve,
)
from mu_llama.app.service import DemoService, Limits
from mu_llama.app.session import DemoSession
from mu_llama.audio.read import AudioWarning
from mu_llama.audio.windows import PLANS
from mu_llama.cli.main import typer_app
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import AudioError, MuLlamaError, QuestionError
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.inference.listener import Listener
from mu_llama.text.fact_prompts import MeasuredFact
from tests.workflow.conftest import SET_A

SETTINGS = (0.0, 1.0, 12)
Messages = list[dict[str, str]]


@pytest.fixture
def toasts() -> list[str]:
    return []


@pytest.fixture
def page(tiny: Listener, toasts: list[str]) -> Callbacks:
    return Callbacks(DemoService(tiny, limits=Limits(max_tracks=4)), toasts.append, unchanged=gr.skip)


def asked(steps: Iterator[Messages]) -> Messages:
    *_, messages = steps
    return messages


def test_a_whole_visit(page: Callbacks, tracks: list[Path]) -> None:
    session = DemoSession()
    shown = page.load_track(str(tracks[0]), session, "auto")
    assert shown is not None
    line, tags, picture, chat, _ = shown
    assert line.startswith("Listened to 0:00-0:01")
    assert tags is None
    assert picture.shape[2] == 3
    assert chat == []
    first = asked(page.ask("What is this?", session, *SETTINGS))
    assert [message["role"] for message in first] == ["user", "assistant"]
    both = asked(page.ask("Why?", session, *SETTINGS))
    assert both[:2] == first
    conversation = page.service.listener.chat(tracks[0], options=GenerationOptions(max_new_tokens=12))
    assert [both[1]["content"], both[3]["content"]] == [conversation.ask(q).text for q in ("What is this?", "Why?")]
    assert {row[0]: row[1] for row in page.measure(session) or []}["duration"] == "0:01 minutes"


def test_a_new_track_overtakes_the_old_answer(page: Callbacks, tracks: list[Path]) -> None:
    session = DemoSession()
    page.load_track(str(tracks[0]), session, "auto")
    stream = page.ask("What is this?", session, *SETTINGS)
    next(stream)
    old = session.token
    page.load_track(str(tracks[1]), session, "auto")
    assert list(stream) == []
    assert session.turns == []
    assert session.token != old
    with pytest.raises(AudioError):
        page.service.handle(old)


def test_facts_of_a_track_that_is_gone_are_not_shown(page: Callbacks, tracks: list[Path]) -> None:
    session = DemoSession()
    page.load_track(str(tracks[0]), session, "auto")
    assert session.handle is not None

    def measure() -> dict[str, MeasuredFact]:
        page.load_track(str(tracks[1]), session, "auto")
        return {"tempo": MeasuredFact("60 BPM")}

    slow = replace(session.handle, track=replace(session.handle.track, measure=measure))
    session.handle = slow
    assert page.measure(session) is None
    page.load_track(None, session, "auto")
    assert page.measure(session) == []


def test_a_bad_file_is_a_toast_and_leaves_no_track(page: Callbacks, toasts: list[str], tracks: list[Path]) -> None:
    session = DemoSession()
    page.load_track(str(tracks[0]), session, "auto")
    tracks[1].write_text("no sound")
    assert page.load_track(str(tracks[1]), session, "auto") == ("", None, None, [], [])
    assert len(toasts) == 1
    assert toasts[0].startswith(tracks[1].name)
    assert str(tracks[1].parent) not in toasts[0]
    with pytest.raises(AudioError, match="there is no track yet"):
        asked(page.ask("What?", session, *SETTINGS))
    page.load_track(str(tracks[2]), session, "auto")
    assert asked(page.ask("What?", session, *SETTINGS))


def test_regenerating_and_editing_drop_what_came_after(page: Callbacks, toasts: list[str], tracks: list[Path]) -> None:
    session = DemoSession()
    page.load_track(str(tracks[0]), session, "auto")
    asked(page.ask("What is this?", session, *SETTINGS))
    both = asked(page.ask("Why?", session, *SETTINGS))
    edited = asked(page.edit(2, "How long?", session, *SETTINGS))
    assert edited[:2] == both[:2]
    assert edited[2]["content"] == "How long?"
    assert asked(page.edit(2, "  ", session, *SETTINGS)) == edited  # refused, and as before
    assert "empty" in toasts[0]
    assert asked(page.regenerate(0, session, *SETTINGS)) == both[:2]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (AudioError("a.wav: is text, not audio; give an audio file"), "a.wav: is text, not audio; give an audio file."),
        (QuestionError("the question\nis empty"), "The question is empty."),
        (
            KeyError("weights"),
            "Something went wrong (KeyError); try again, and look into the server's log if it stays so.",
        ),
    ],
)
def test_errors_are_toasts_of_one_sentence_and_the_page_stays(
    page: Callbacks, toasts: list[str], caplog: pytest.LogCaptureFixture, error: Exception, text: str
) -> None:
    def fail() -> None:
        raise error

    def fail_late() -> Iterator[int]:
        yield 1
        raise error

    assert page.guard(fail)() == gr.skip()
    assert list(page.guard_stream(fail_late)()) == [1, gr.skip()]
    assert toasts == [text, text]
    assert len(caplog.records) == (0 if isinstance(error, MuLlamaError) else 2)
    assert page.guard(lambda: 3)() == 3


def test_a_question_that_cannot_be_asked_goes_back_into_its_box(
    page: Callbacks, toasts: list[str], tracks: list[Path]
) -> None:
    session = DemoSession()
    ask = _ask_from_box(page)
    assert list(ask("What is this?", session, *SETTINGS)) == [("What is this?", gr.skip())]
    assert "no track yet" in toasts[0]
    page.load_track(str(tracks[0]), session, "auto")
    steps = list(ask("What is this?", session, *SETTINGS))
    assert all(box == gr.skip() for box, _ in steps), "what is written meanwhile stays"
    assert steps[-1][1][0]["content"] == "What is this?"


def test_nothing_is_asked_about_the_old_track_once_a_new_one_comes(page: Callbacks, tracks: list[Path]) -> None:
    session = DemoSession()
    page.load_track(str(tracks[0]), session, "auto")
    old = session.token
    assert page.clear_track(str(tracks[1]), session) == ("Encoding\u2026", None, None, [], [])
    with pytest.raises(AudioError, match="still being read"):
        next(page.ask("What is this?", session, *SETTINGS))
    with pytest.raises(AudioError, match="upload it again"):
        page.service.handle(old)
    page.load_track(str(tracks[1]), session, "auto")
    assert asked(page.ask("What is this?", session, *SETTINGS))
    page.clear_track(None, session)
    with pytest.raises(AudioError, match="there is no track yet"):
        next(page.ask("What is this?", session, *SETTINGS))


def test_a_track_that_another_overtakes_while_it_is_heard_is_not_kept(
    page: Callbacks, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, take = DemoSession(), page.service.add
    taken: list[str] = []

    def slowly(path: str, **more: Any) -> Any:
        held = take(path, **more)
        taken.append(held.token)
        page.clear_track(str(tracks[1]), session)
        return held

    monkeypatch.setattr(page.service, "add", slowly)
    assert page.load_track(str(tracks[0]), session, "auto") is None
    assert session.is_encoding
    assert session.handle is None
    with pytest.raises(AudioError):
        page.service.handle(taken[0])


def test_what_could_be_read_only_in_part_is_a_toast(page: Callbacks, toasts: list[str], tmp_path: Path) -> None:
    time_s = np.arange(16000 * 4) / 16000
    soundfile.write(tmp_path / "whole.wav", 0.3 * np.sin(2 * np.pi * 300 * time_s), 16000)
    cut = tmp_path / "cut.wav"
    cut.write_bytes((tmp_path / "whole.wav").read_bytes()[:64000])
    session = DemoSession()
    with pytest.warns(AudioWarning):
        shown = page.load_track(str(cut), session, "auto")
    assert shown is not None
    assert shown[0].startswith("Listened to 0:00-0:01")
    assert toasts == ["cut.wav: ends early, after 2.0 s; copy or download it again."]


def test_facts_that_cannot_be_measured_say_so(page: Callbacks, tracks: list[Path]) -> None:
    session = DemoSession()
    page.load_track(str(tracks[0]), session, "auto")
    assert session.handle is not None
    held = replace(session.handle, track=replace(session.handle.track, measure=dict))
    session.handle = held
    assert page.measure(session) == [["nothing", "can't be measured here; the server's log says why", ""]]


@pytest.mark.parametrize(("loaded", "chosen"), [("published", "auto"), ("full", "full")])
def test_seconds_used_begin_as_the_command_said(
    tiny: Listener, tracks: list[Path], loaded: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[object] = []
    extract = FeatureExtractor.extract

    def spied(self: FeatureExtractor, audio: Any, **more: Any) -> Any:
        used.append(more["options"].window or self.plan)
        return extract(self, audio, **more)

    monkeypatch.setattr(FeatureExtractor, "extract", spied)
    extractor = FeatureExtractor(lambda: tiny.extractor.encoder, plan=PLANS[loaded], cache=None)
    service = DemoService(Listener(tiny.opened, extractor=extractor))
    assert tiny.opened.plan == PLANS["published"]
    assert service.listener.window == chosen
    for window in ("auto", service.listener.window, None):
        service.encode(tracks[0], window=window)
    assert used == [PLANS["published"], PLANS[loaded], PLANS[loaded]]
    choice = next(block for block in build_page(service).blocks.values() if isinstance(block, gr.Radio))
    assert choice.value == chosen


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_the_page_is_served_behind_a_proxy(name: str, tiny: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio asks its own page whether it is there: past the proxy, which is a dead one here."""
    for own in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.setenv(own, "example.com")
        monkeypatch.delenv(own)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr("gradio.Blocks.block_thread", lambda _: None)
    handler = signal.getsignal(signal.SIGTERM)
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Markdown("Here.")
    try:
        serve(blocks, Serving(), max_mb=1)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert direct.open(blocks.local_url, timeout=10).status == 200
    finally:
        blocks.close(verbose=False)
        signal.signal(signal.SIGTERM, handler)
    assert os.environ[name] == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (None, None, "localhost,127.0.0.1,::1,10.0.0.7"),
        (None, "intra.net, 10.0.0.7", "intra.net,10.0.0.7,localhost,127.0.0.1,::1"),
        ("intra.net", "other.net", "intra.net,localhost,127.0.0.1,::1,10.0.0.7"),
        ("*", None, "*"),
    ],
)
def test_hosts_that_need_no_proxy_are_added_to(
    lower: str | None, upper: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("no_proxy", lower), ("NO_PROXY", upper)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    reach_past_proxies("10.0.0.7")
    assert os.environ.get("no_proxy") == expected
    if expected != "*":
        assert os.environ.get("NO_PROXY") == expected


def test_half_a_letter_is_refused_and_the_page_can_show_it(
    page: Callbacks, toasts: list[str], tracks: list[Path], tmp_path: Path
) -> None:
    session, bad = DemoSession(), "Is this \ud83d jazz?"
    page.load_track(str(tracks[0]), session, "auto")
    assert list(_ask_from_box(page)(bad, session, *SETTINGS)) == [("Is this ? jazz?", gr.skip())]
    assert "no text" in toasts[0]
    *_, (table, rows, _) = page.batch(
        session.begin_run(), [str(tracks[0])], f"{bad}\nIs it slow?", session, "auto", *SETTINGS
    )
    assert json.dumps(table, ensure_ascii=False).encode()
    assert [bool(row[3]) for row in rows] == [True, False]
    for path in save_all(rows):
        assert Path(path).stat().st_size > 0
    said = asked(page.ask("Is it slow?", session, *SETTINGS))
    assert said[-1]["content"]


def test_the_page_is_private_by_default(page: Callbacks) -> None:
    assert Serving().host == "127.0.0.1"
    assert not Serving().share
    blocks = build_page(page.service)
    assert not blocks.api_open
    assert not blocks.analytics_enabled
    labelled = [
        block for block in blocks.blocks.values() if isinstance(block, (gr.Textbox, gr.Slider, gr.Audio, gr.File))
    ]
    assert labelled
    assert all(block.label for block in labelled)


def run(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(typer_app, ["demo", *arguments], env=environment)


def test_the_command_serves_what_was_asked(monkeypatch: pytest.MonkeyPatch, tiny: Listener, tmp_path: Path) -> None:
    served: dict[str, Any] = {}
    monkeypatch.setattr("mu_llama.cli.options.load_listener", lambda _: tiny)
    monkeypatch.setattr("mu_llama.app.page.serve", lambda blocks, where, **rest: served.update(where=where, **rest))
    done = run("--port", "7999", "--most-mb", "5", MU_LLAMA_DEMO_AUTH="me:secret")
    assert done.exit_code == 0, done.output
    assert served["where"] == Serving("127.0.0.1", 7999, share=False, auth=("me", "secret"))
    assert served["max_mb"] == 5
    assert "secret" not in done.output


def test_the_published_command_serves_a_published_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tracks: list[Path], tiny: Listener
) -> None:
    services: list[DemoService] = []
    monkeypatch.setattr("mu_llama.app.page.build_page", lambda service, **_: services.append(service))
    monkeypatch.setattr("mu_llama.app.page.serve", lambda *_, **__: None)
    checkpoint, llama, mert = (str(SET_A / name) for name in ("checkpoint_finetune.pth", "llama", "mert"))
    done = run("--model", checkpoint, "--llama", llama, "--encoder", mert, "--dtype", "fp32", "--most-tracks", "2")
    assert done.exit_code == 0, done.output
    service, session = services[0], DemoSession()
    assert service.limits.max_tracks == 2
    page = Callbacks(service, print)
    page.load_track(str(tracks[0]), session, "auto")
    said = asked(page.ask("What is this?", session, *SETTINGS))
    options = GenerationOptions(max_new_tokens=12)
    assert said[-1]["content"] == tiny.ask(tracks[0], "What is this?", options=options).text


def test_the_command_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "make its folder first" in run("--likes", str(tmp_path / "no" / "likes.jsonl")).output
    assert "NAME:PASSWORD" in run("--auth", "nobody").output
    monkeypatch.setitem(sys.modules, "mu_llama.app.page", None)
    assert "pip install 'mu-llama[demo]'" in run().output
