"""The page's callbacks, called as gradio calls them, and the command that serves it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from typer.testing import CliRunner

from mu_llama.app.chat import Desk, Limits, Stopped
from mu_llama.app.page import Page, Serving, _told, _told_on_the_way, build_page
from mu_llama.cli.main import typer_app
from mu_llama.listener import Listener

SETTINGS = (0.0, 1.0, 12)


@pytest.fixture
def page(tiny: Listener) -> Page:
    return Page(Desk(tiny, limits=Limits(most_tracks=4)), [])


def test_a_whole_visit(page: Page, tracks: list[Path]) -> None:
    token, line, tags, picture, facts, chat = page.hear(str(tracks[0]), "")
    assert token
    assert line.startswith("Heard 0:00-0:01")
    assert tags is None
    assert picture.shape[2] == 3
    assert (facts, chat) == ([], [])
    stopped = Stopped()
    *_, (box, messages) = page.ask("What is this?", [], token, stopped, *SETTINGS)
    assert box == ""
    assert [message["role"] for message in messages] == ["user", "assistant"]
    *_, (_, longer) = page.ask("Why?", messages, token, stopped, *SETTINGS)
    assert longer[:2] == messages
    chat_of_ask = page.desk.listener.chat(tracks[0])
    chat_of_ask.options = chat_of_ask.options.__class__(max_new_tokens=12)
    assert messages[1]["content"] == chat_of_ask.ask("What is this?").text
    assert longer[3]["content"] == chat_of_ask.ask("Why?").text
    second, *_ = page.hear(str(tracks[1]), token)
    assert second != token
    with pytest.raises(gr.Error, match="upload it again"):
        list(_told_on_the_way(page.ask)("What?", [], token, stopped, *SETTINGS))


def test_regenerating_and_editing_drop_what_came_after(page: Page, tracks: list[Path]) -> None:
    token, *_ = page.hear(str(tracks[0]), "")
    stopped = Stopped()
    *_, (_, messages) = page.ask("What is this?", [], token, stopped, *SETTINGS)
    *_, (_, messages) = page.ask("Why?", messages, token, stopped, *SETTINGS)
    retry = gr.RetryData(None, {"index": 0, "value": "What is this?"})
    *_, (_, again) = page.regenerate(retry, messages, token, stopped, *SETTINGS)
    assert again == messages[:2]
    edit = gr.EditData(None, {"index": 2, "value": "How long?", "previous_value": "Why?"})
    *_, (_, edited) = page.edit(edit, messages, token, stopped, *SETTINGS)
    assert edited[:2] == messages[:2]
    assert edited[2]["content"] == "How long?"
    assert len(edited) == 4


@pytest.mark.parametrize("question", ["", "   "])
def test_errors_are_one_sentence(page: Page, tracks: list[Path], question: str) -> None:
    token, *_ = page.hear(str(tracks[0]), "")
    with pytest.raises(gr.Error) as raised:
        list(_told_on_the_way(page.ask)(question, [], token, Stopped(), *SETTINGS))
    assert raised.value.message[0].isupper()
    assert raised.value.message.endswith((".", "?'."))
    with pytest.raises(gr.Error, match="There is no track yet"):
        list(_told_on_the_way(page.ask)("What?", [], "", Stopped(), *SETTINGS))


def test_a_bad_file_is_a_toast_and_no_track_is_none(page: Page, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(gr.Error, match=r"a\.wav"):
        _told(page.hear)(str(tmp_path / "a.wav"), "")
    assert page.hear(None, "")[0] == ""
    assert page.measure("") == []


def test_the_page_is_private_by_default(page: Page) -> None:
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


def test_the_command_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NAME:PASSWORD" in run("--auth", "nobody").output
    monkeypatch.setitem(sys.modules, "mu_llama.app.page", None)
    assert "pip install 'mu-llama[demo]'" in run().output
