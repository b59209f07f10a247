"""Help pages show every text to the letter; so do progress bars and tables, whatever stands in brackets."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from rich.console import Console
from typer.testing import CliRunner

from mu_llama.cli import info
from mu_llama.cli.main import typer_app
from mu_llama.cli.progress import _make_bars
from mu_llama.cli.train import _Display

BRACKETS = ["[red]x[/red]", "[/]", "a[bold]", "[0]", "[link]y[/link]", "x:smile:"]


def pages(command: Any = None, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and sub-command, with the words that call it."""
    command = command or typer.main.get_command(typer_app)
    yield names, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from pages(inner, (*names, name))


PAGES = dict(pages())


def packed(text: str) -> str:
    """A text without its spaces and ends of lines, which depend on the width of the terminal."""
    return "".join(text.split())


@pytest.mark.parametrize("names", PAGES, ids=" ".join)
def test_every_text_is_on_its_page(names: tuple[str, ...]) -> None:
    result = CliRunner().invoke(typer_app, [*names, "--help"])
    assert result.exit_code == 0
    page, command = packed(result.output), PAGES[names]
    shown = [one for one in command.params if getattr(one, "help", None) and not getattr(one, "hidden", False)]
    texts = [command.help, *(parameter.help for parameter in shown)]
    for text in texts:
        assert packed(text) in page
    for inner in getattr(command, "commands", {}).values():
        first = inner.help.split("\n\n")[0]
        assert packed(first) in page, "cut off in the list of commands"


def test_what_is_to_be_copied_stays_in_one_piece() -> None:
    for names in [(), ("demo",), ("facts",)]:
        output = CliRunner().invoke(typer_app, [*names, "--help"]).output
        assert f"mu-llama[{names[0] if names else 'demo'}]" in output


def test_the_pages_have_brackets_to_show() -> None:
    shown = {found for names in PAGES for found in re.findall(r"mu-llama\[\w+\]", PAGES[names].help)}
    assert {"mu-llama[demo]", "mu-llama[facts]"} <= shown


@pytest.mark.parametrize("text", BRACKETS)
def test_progress_shows_names_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    bars = _make_bars()
    bars.add_task(text, total=10)
    drawn = io.StringIO()
    Console(file=drawn, width=200).print(bars.get_renderable())
    assert text in drawn.getvalue()
    display: Any = _Display()
    display.on_start({}, text, 5, 0)
    display.on_samples(1, [{"audio": f"folder/{text}", "question": text, "answer": text}])
    display._bar.update(display._task, description=text)
    display.close()
    assert capsys.readouterr().err.count(text.rpartition("/")[2]) >= 4


@pytest.mark.parametrize("text", BRACKETS)
def test_info_shows_names_as_they_are(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("mu-llama", "python", "platform", "devices", "engine", "cache folder", "cached features", "cached graphs")
    model = {"name": text, "state": text, "licences": {text: text}}
    facts = {**dict.fromkeys(names, text), "packages": {"torch": text}, "models": [model]}
    monkeypatch.setattr(info, "_facts", lambda: facts)
    result = CliRunner().invoke(typer_app, ["info"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert result.output.count(text) == len(names) + 1 + 4


@pytest.mark.parametrize("text", BRACKETS)
def test_errors_show_names_as_they_are(text: str) -> None:
    for line in (["ask", f"{text}.wav", "-q", text], ["ask", "x.wav", "-q", "?", "--model", text], ["facts", text]):
        result = CliRunner().invoke(typer_app, line)
        assert result.exit_code == 2
        name = text if line[-1] == text and line[0] == "ask" and "--model" in line else text.rpartition("/")[2]
        assert name in result.stderr or repr(name) in result.stderr
    result = CliRunner().invoke(typer_app, ["train", "--config", "configs/mini.yaml", "--set", f"{text}=[/]"])
    assert text in result.stderr or repr(text)[1:-1] in result.stderr
    assert "Traceback" not in result.stderr
