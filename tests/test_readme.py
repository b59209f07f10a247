"""The README's commands run, and its promises about files and targets hold."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mu_llama
from mu_llama import Listener
from mu_llama.cli.main import typer_app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines() if line.strip()]


def test_the_readme_is_short_and_its_links_exist() -> None:
    assert len(README.splitlines()) < 160
    assert "docs/pictures/demo-light.png" in "".join(README.splitlines()[:20])
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_first_commands_are_ask_and_test() -> None:
    ask, test = COMMANDS[:2]
    assert ask.startswith("make ask AUDIO=examples/audio/")
    assert test == "make test"
    audio = re.search(r"AUDIO=(\S+)", ask)
    assert audio is not None
    assert (ROOT / audio[1]).is_file()


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_make_targets_exist(line: str) -> None:
    targets = [word for word in shlex.split(line)[1:] if "=" not in word]
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("line", [line for line in COMMANDS if "mu-llama " in line and "python" not in line])
def test_options_in_commands_exist(line: str) -> None:
    words = shlex.split(line.split(">")[0])
    words = words[next(i for i, word in enumerate(words) if word.endswith("mu-llama")) + 1 :]
    command = words[:2] if words[0] == "musicqa" else words[:1]
    shown = CliRunner().invoke(typer_app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}\b", shown.stdout), option


def test_every_long_option_of_the_text_exists() -> None:
    shown = CliRunner().invoke(typer_app, ["ask", "--help"], env={"COLUMNS": "200"}).stdout
    for option in set(re.findall(r"`(--[a-z-]+)", README)):
        assert option in shown, option


@pytest.mark.parametrize("clip", sorted((ROOT / "examples" / "audio").glob("*.ogg")), ids=lambda path: path.name)
def test_example_clips_are_small_and_credited(clip: Path) -> None:
    assert clip.stat().st_size <= 300_000
    assert clip.name in (clip.parent / "README.md").read_text()


ANSWERS = re.findall(r"^\| `(examples/audio/\S+)` \| (.+?) \| (.+?) \|$", README, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def load_once() -> Iterator[Callable[..., Listener]]:
    """Commands in this process share one model, since loading it takes most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules[mu_llama.load.__module__]
        load = functools.cache(mu_llama.load)

        def without_callbacks(model: str = "mini", **settings: Any) -> Listener:
            return load(model, **{name: value for name, value in settings.items() if not callable(value)})

        patch.setattr(module, "load", without_callbacks)
        yield without_callbacks
        assert load.cache_info().misses <= 2, "the command's settings and Python's"


def test_the_first_answer_in_the_readme_is_what_the_command_prints() -> None:
    audio, question, answer = ANSWERS[0]
    command = [sys.executable, "-c", "from mu_llama.cli.main import app; app()", "ask", audio, "-q", question]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == answer


@pytest.mark.usefixtures("load_once")
@pytest.mark.parametrize(("audio", "question", "answer"), ANSWERS[1:])
def test_answers_in_the_readme_are_what_the_command_prints(audio: str, question: str, answer: str) -> None:
    printed = CliRunner().invoke(typer_app, ["ask", str(ROOT / audio), "-q", question])
    assert printed.exit_code == 0
    assert printed.stdout.strip() == answer


def test_the_chat_in_the_readme_gives_the_answers_beside_it() -> None:
    (block,) = (block for kind, block in BLOCKS if kind == "python")
    audio = re.search(r"listener\.chat\(\"(.+?)\"\)", block)
    shown = re.findall(r"^chat\.ask\(\"(.+?)\"\)\.text +# (.+)$", block, flags=re.MULTILINE)
    assert audio is not None
    assert len(shown) > 1
    # Features of an earlier version in the cache differ in their last bits, which can choose between two wordings.
    chat = mu_llama.load("mini", use_cache=False).chat(ROOT / audio[1])
    for question, answer in shown:
        assert chat.ask(question).text == answer
