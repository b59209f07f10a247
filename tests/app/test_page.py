"""The page's callbacks, called as gradio calls them, and the command that serves it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from typer.testing import CliRunner

from mu_llama.app.callbacks import Callbacks, sentence
from mu_llama.app.chat import Desk, Limits
from mu_llama.app.page import Serving, _told, _told_on_the_way, build_page
from mu_llama.app.visit import Visit
from mu_llama.cli.main import typer_app
from mu_llama.errors import AudioError, MuLlamaError, QuestionError
from mu_llama.generation import GenerationOptions
from mu_llama.listener import Listener
from mu_llama.measured import Measured

SETTINGS = (0.0, 1.0, 12)
Messages = list[dict[str, str]]


@pytest.fixture
def toasts() -> list[str]:
    return []


@pytest.fixture
def page(tiny: Listener, toasts: list[str]) -> Callbacks:
    return Callbacks(Desk(tiny, limits=Limits(most_tracks=4)), toasts.append)


def asked(steps: Iterator[tuple[str, Messages]]) -> Messages:
    *_, (box, messages) = steps
    assert box == ""
    return messages


def test_a_whole_visit(page: Callbacks, tracks: list[Path]) -> None:
    visit = Visit()
    line, tags, picture, chat, _ = page.hear(str(tracks[0]), visit, "auto")
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

    def measure() -> dict[str, Measured]:
        page.hear(str(tracks[1]), visit, "auto")
        return {"tempo": Measured("60 BPM")}

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
    ],
)
def test_toasts_are_sentences(error: MuLlamaError, text: str) -> None:
    assert sentence(error) == text

    def fail() -> None:
        raise error

    with pytest.raises(gr.Error, match=re.escape(text)):
        _told(fail)()
    with pytest.raises(gr.Error, match=re.escape(text)):
        list(_told_on_the_way(lambda: iter([fail()]))())


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


def test_the_command_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "make its folder first" in run("--likes", str(tmp_path / "no" / "likes.jsonl")).output
    assert "NAME:PASSWORD" in run("--auth", "nobody").output
    monkeypatch.setitem(sys.modules, "mu_llama.app.page", None)
    assert "pip install 'mu-llama[demo]'" in run().output
