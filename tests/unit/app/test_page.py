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
    _asking_from_the_box,
    build_page,
    reach_past_proxies,
    serve,
)
from mu_llama.app.service import DemoService, Limits
from mu_llama.app.session import Visit
from mu_llama.audio.read import AudioWarning
from mu_llama.checkpoints.open_model import PLANS
from mu_llama.cli.main import typer_app
from mu_llama.errors import AudioError, MuLlamaError, QuestionError
from mu_llama.generation import GenerationOptions
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
    return Callbacks(DemoService(tiny, limits=Limits(most_tracks=4)), toasts.append, unchanged=gr.skip)


def asked(steps: Iterator[Messages]) -> Messages:
    *_, messages = steps
    return messages


def test_a_whole_visit(page: Callbacks, tracks: list[Path]) -> None:
    visit = Visit()
    shown = page.hear(str(tracks[0]), visit, "auto")
    assert shown is not None
    line, tags, picture, chat, _ = shown
    assert line.startswith("Heard 0:00-0:01")
    assert tags is None
    assert picture.shape[2] == 3
    assert chat == []
    first = asked(page.ask("What is this?", visit, *SETTINGS))
    assert [message["role"] for message in first] == ["user", "assistant"]
    both = asked(page.ask("Why?", visit, *SETTINGS))
    assert both[:2] == first
    conversation = page.desk.listener.chat(tracks[0], options=GenerationOptions(max_new_tokens=12))
    assert [both[1]["content"], both[3]["content"]] == [conversation.ask(q).text for q in ("What is this?", "Why?")]
    assert {row[0]: row[1] for row in page.measure(visit) or []}["duration"] == "0:01 minutes"


def test_a_new_track_overtakes_the_old_answer(page: Callbacks, tracks: list[Path]) -> None:
    visit = Visit()
    page.hear(str(tracks[0]), visit, "auto")
    stream = page.ask("What is this?", visit, *SETTINGS)
    next(stream)
    old = visit.token
    page.hear(str(tracks[1]), visit, "auto")
    assert list(stream) == []
    assert visit.turns == []
    assert visit.token != old
    with pytest.raises(AudioError):
        page.desk.held(old)


def test_facts_of_a_track_that_is_gone_are_not_shown(page: Callbacks, tracks: list[Path]) -> None:
    visit = Visit()
    page.hear(str(tracks[0]), visit, "auto")
    assert visit.held is not None

    def measure() -> dict[str, MeasuredFact]:
        page.hear(str(tracks[1]), visit, "auto")
        return {"tempo": MeasuredFact("60 BPM")}

    slow = replace(visit.held, track=replace(visit.held.track, measure=measure))
    visit.held = slow
    assert page.measure(visit) is None
    page.hear(None, visit, "auto")
    assert page.measure(visit) == []


def test_a_bad_file_is_a_toast_and_leaves_no_track(page: Callbacks, toasts: list[str], tracks: list[Path]) -> None:
    visit = Visit()
    page.hear(str(tracks[0]), visit, "auto")
    tracks[1].write_text("no sound")
    assert page.hear(str(tracks[1]), visit, "auto") == ("", None, None, [], [])
    assert len(toasts) == 1
    assert toasts[0].startswith(tracks[1].name)
    assert str(tracks[1].parent) not in toasts[0]
    with pytest.raises(AudioError, match="there is no track yet"):
        asked(page.ask("What?", visit, *SETTINGS))
    page.hear(str(tracks[2]), visit, "auto")
    assert asked(page.ask("What?", visit, *SETTINGS))


def test_regenerating_and_editing_drop_what_came_after(page: Callbacks, toasts: list[str], tracks: list[Path]) -> None:
    visit = Visit()
    page.hear(str(tracks[0]), visit, "auto")
    asked(page.ask("What is this?", visit, *SETTINGS))
    both = asked(page.ask("Why?", visit, *SETTINGS))
    edited = asked(page.edit(2, "How long?", visit, *SETTINGS))
    assert edited[:2] == both[:2]
    assert edited[2]["content"] == "How long?"
    assert asked(page.edit(2, "  ", visit, *SETTINGS)) == edited  # refused, and as before
    assert "empty" in toasts[0]
    assert asked(page.regenerate(0, visit, *SETTINGS)) == both[:2]


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
    visit = Visit()
    ask = _asking_from_the_box(page)
    assert list(ask("What is this?", visit, *SETTINGS)) == [("What is this?", gr.skip())]
    assert "no track yet" in toasts[0]
    page.hear(str(tracks[0]), visit, "auto")
    steps = list(ask("What is this?", visit, *SETTINGS))
    assert all(box == gr.skip() for box, _ in steps), "what is written meanwhile stays"
    assert steps[-1][1][0]["content"] == "What is this?"


def test_nothing_is_asked_about_the_old_track_once_a_new_one_comes(page: Callbacks, tracks: list[Path]) -> None:
    visit = Visit()
    page.hear(str(tracks[0]), visit, "auto")
    old = visit.token
    assert page.expect(str(tracks[1]), visit) == ("Listening\u2026", None, None, [], [])
    with pytest.raises(AudioError, match="still being heard"):
        next(page.ask("What is this?", visit, *SETTINGS))
    with pytest.raises(AudioError, match="upload it again"):
        page.desk.held(old)
    page.hear(str(tracks[1]), visit, "auto")
    assert asked(page.ask("What is this?", visit, *SETTINGS))
    page.expect(None, visit)
    with pytest.raises(AudioError, match="there is no track yet"):
        next(page.ask("What is this?", visit, *SETTINGS))


def test_a_track_that_another_overtakes_while_it_is_heard_is_not_kept(
    page: Callbacks, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    visit, take = Visit(), page.desk.take
    taken: list[str] = []

    def slowly(path: str, **more: Any) -> Any:
        held = take(path, **more)
        taken.append(held.token)
        page.expect(str(tracks[1]), visit)
        return held

    monkeypatch.setattr(page.desk, "take", slowly)
    assert page.hear(str(tracks[0]), visit, "auto") is None
    assert visit.is_hearing
    assert visit.held is None
    with pytest.raises(AudioError):
        page.desk.held(taken[0])


def test_what_could_be_read_only_in_part_is_a_toast(page: Callbacks, toasts: list[str], tmp_path: Path) -> None:
    time_s = np.arange(16000 * 4) / 16000
    soundfile.write(tmp_path / "whole.wav", 0.3 * np.sin(2 * np.pi * 300 * time_s), 16000)
    cut = tmp_path / "cut.wav"
    cut.write_bytes((tmp_path / "whole.wav").read_bytes()[:64000])
    visit = Visit()
    with pytest.warns(AudioWarning):
        shown = page.hear(str(cut), visit, "auto")
    assert shown is not None
    assert shown[0].startswith("Heard 0:00-0:01")
    assert toasts == ["cut.wav: ends early, after 2.0 s; copy or download it again."]


def test_facts_that_cannot_be_measured_say_so(page: Callbacks, tracks: list[Path]) -> None:
    visit = Visit()
    page.hear(str(tracks[0]), visit, "auto")
    assert visit.held is not None
    held = replace(visit.held, track=replace(visit.held.track, measure=dict))
    visit.held = held
    assert page.measure(visit) == [["nothing", "can't be measured here; the server's log says why", ""]]


@pytest.mark.parametrize(("loaded", "chosen"), [("published", "auto"), ("full", "full")])
def test_seconds_heard_begin_as_the_command_said(tiny: Listener, loaded: str, chosen: str) -> None:
    hearing = FeatureExtractor(tiny.opened.make_encoder, plan=PLANS[loaded], cache=None)
    desk = DemoService(Listener(tiny.opened, hearing=hearing))
    assert tiny.opened.plan == PLANS["published"]
    assert desk.window == chosen
    assert desk._listener("auto").hearing.plan == PLANS["published"]
    assert desk._listener(desk.window).hearing.plan == PLANS[loaded]
    choice = next(block for block in build_page(desk).blocks.values() if isinstance(block, gr.Radio))
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
        serve(blocks, Serving(), most_mb=1)
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
    visit, bad = Visit(), "Is this \ud83d jazz?"
    page.hear(str(tracks[0]), visit, "auto")
    assert list(_asking_from_the_box(page)(bad, visit, *SETTINGS)) == [("Is this ? jazz?", gr.skip())]
    assert "no text" in toasts[0]
    *_, (table, rows, _) = page.batch(visit.begin(), [str(tracks[0])], f"{bad}\nIs it slow?", visit, "auto", *SETTINGS)
    assert json.dumps(table, ensure_ascii=False).encode()
    assert [bool(row[3]) for row in rows] == [True, False]
    for path in save_all(rows):
        assert Path(path).stat().st_size > 0
    said = asked(page.ask("Is it slow?", visit, *SETTINGS))
    assert said[-1]["content"]


def test_the_page_is_private_by_default(page: Callbacks) -> None:
    assert Serving().host == "127.0.0.1"
    assert not Serving().share
    blocks = build_page(page.desk)
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
    assert served["most_mb"] == 5
    assert "secret" not in done.output


def test_the_published_command_serves_a_published_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tracks: list[Path], tiny: Listener
) -> None:
    desks: list[DemoService] = []
    monkeypatch.setattr("mu_llama.app.page.build_page", lambda desk, **_: desks.append(desk))
    monkeypatch.setattr("mu_llama.app.page.serve", lambda *_, **__: None)
    checkpoint, llama, mert = (str(SET_A / name) for name in ("checkpoint_finetune.pth", "llama", "mert"))
    done = run("--model", checkpoint, "--llama", llama, "--encoder", mert, "--dtype", "fp32", "--most-tracks", "2")
    assert done.exit_code == 0, done.output
    desk, visit = desks[0], Visit()
    assert desk.limits.most_tracks == 2
    page = Callbacks(desk, print)
    page.hear(str(tracks[0]), visit, "auto")
    said = asked(page.ask("What is this?", visit, *SETTINGS))
    options = GenerationOptions(max_new_tokens=12)
    assert said[-1]["content"] == tiny.ask(tracks[0], "What is this?", options=options).text


def test_the_command_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "make its folder first" in run("--likes", str(tmp_path / "no" / "likes.jsonl")).output
    assert "NAME:PASSWORD" in run("--auth", "nobody").output
    monkeypatch.setitem(sys.modules, "mu_llama.app.page", None)
    assert "pip install 'mu-llama[demo]'" in run().output
