"""What people type and how files are called, on any terminal; and whose warnings are shown."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mu_llama.cli.main import typer_app
from mu_llama.errors import QuestionError
from mu_llama.inference.listener import Listener
from mu_llama.text.prompts import Turn
from tests.workflow.conftest import home, tiny, tracks
from tests.workflow.test_bad_input import MODEL, tone, write_wav

__all__ = ["home", "tiny", "tracks"]
COMMAND = [sys.executable, "-c", "from mu_llama.cli.main import app; app()"]
HALVES = [b"\xc3", b"\xff\xfe", b"caf\xe9", b"\xed\xa0\xbd", b"\xf0\x9f\x8e"]


@pytest.fixture
def song(tmp_path: Path) -> Path:
    write_wav(tmp_path / "good.wav", tone(1, 16000), 16000)
    return tmp_path / "good.wav"


def test_half_a_character_costs_one_question_of_a_conversation(song: Path) -> None:
    typed = b"What is it?\n" + b"".join(b"Is it " + half + b"?\n" for half in HALVES) + b"Is it slow?\n\n"
    result = CliRunner().invoke(typer_app, ["chat", str(song), *MODEL], input=typed)
    assert result.exit_code == 0, result.exception
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(HALVES)
    assert all("UTF-8" in line for line in errors)
    assert len(result.stdout.splitlines()) == 2, "the questions before and after are answered"


def test_names_and_answers_on_a_terminal_of_ascii(song: Path) -> None:
    """A name of bytes that are no text is heard, and shown as far as the terminal can."""
    path = os.fsencode(song.parent) + b"/caf\xe9 \xff.wav"
    Path(os.fsdecode(path)).write_bytes(song.read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    line = [*COMMAND, "ask", path, str(song), "-q", "Ist es schön?", *MODEL]
    done = subprocess.run(line, capture_output=True, env=environment, check=False)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"good.wav") == 1
    # Triton, in builds of torch for GPUs, may list what it leaked when Python 3.13 ends.
    assert [line for line in done.stderr.splitlines() if not line.startswith((b"nanobind", b" - ", b"See "))] == []


def test_half_a_letter_anywhere_in_a_conversation_is_a_question_error(tiny: Listener, tracks: list[Path]) -> None:
    half = "Is this \ud83d jazz?"
    track = tiny.listen(tracks[0])
    for turns in ([Turn(half)], [Turn(half, "Yes."), Turn("Slow?")], [Turn("Jazz?", half), Turn("Slow?")]):
        with pytest.raises(QuestionError, match="UTF-8"):
            tiny.stream_turns(track, turns)
    conversation = tiny.chat(track)
    with pytest.raises(QuestionError, match="UTF-8"):
        conversation.ask(half)
    assert conversation.ask("Is it slow?").text
    assert len(conversation.turns) == 1


def warn_from(module: str) -> None:
    code = "import warnings\ndef warn():\n    warnings.warn('told by {}', FutureWarning, stacklevel=2)\n"
    space: dict[str, Any] = {"__name__": module}
    exec(compile(code.format(module), f"/lib/{module}.py", "exec"), space)
    space["warn"]()


def test_only_our_own_warnings_are_shown_each_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def facts() -> dict[str, Any]:
        warn_from("somelibrary.part")
        warn_from("mu_llama.part")
        warnings.warn_explicit("old syntax", SyntaxWarning, "/lib/other.py", 3)
        return {}

    monkeypatch.setattr("mu_llama.cli.info._facts", facts)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = CliRunner().invoke(typer_app, ["info", "--json"])
    assert result.exit_code == 0
    assert result.stderr == "warning: told by mu_llama.part\n"
