"""The `mu-llama` command: its sub-commands, its help pages, and how its output can end."""

from __future__ import annotations

import inspect
import signal
import sys
import textwrap
from typing import Any

import typer
from typer.core import TyperGroup

from mu_llama import __version__
from mu_llama.cli.ask import ask
from mu_llama.cli.chat import chat
from mu_llama.cli.convert import convert
from mu_llama.cli.demo import demo
from mu_llama.cli.facts import facts_command
from mu_llama.cli.info import info
from mu_llama.cli.musicqa import export_command, import_command, scan_command
from mu_llama.cli.musicqa_build import build_command
from mu_llama.cli.options import FAILED, say_warnings_plainly
from mu_llama.cli.train import train_command

_MARGIN, _MIN_WIDTH = 2, 20
_EXTRAS = {"torch": "torch", "transformers": "torch", "accelerate": "train", "peft": "train"}
"""Libraries that a command may need, with the extra that brings each."""


class WholeTextGroup(TyperGroup):
    """A group of commands whose list cuts no text off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands onto a help page."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_paragraph(command.help)) for name, command in commands if command and not command.hidden]
        if not rows:
            return
        indent = max(len(name) for name, _ in rows) + _MARGIN
        with formatter.section("Commands"):
            for name, text in rows:
                # Not broken at hyphens, so that 'mu-llama[demo]' can be copied.
                lines = textwrap.wrap(text, max(formatter.width - indent - _MARGIN, _MIN_WIDTH), break_on_hyphens=False)
                for number, line in enumerate(lines):
                    formatter.write(f"{'':{_MARGIN}}{'' if number else name:{indent}}{line}\n")


def _first_paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


musicqa_app = typer.Typer(
    help="Make question-answer and caption data about music from tags and captions.",
    cls=WholeTextGroup,
    no_args_is_help=True,
)
musicqa_app.command("scan")(scan_command)
musicqa_app.command("build")(build_command)
musicqa_app.command("export")(export_command)
musicqa_app.command("import")(import_command)


typer_app = typer.Typer(
    name="mu-llama",
    cls=WholeTextGroup,
    help="Listens to music and answers in words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # markup would swallow what stands in brackets
    context_settings={"help_option_names": ["-h", "--help"]},
)
typer_app.command()(ask)
typer_app.command()(chat)
typer_app.command()(convert)
typer_app.command()(demo)
typer_app.command("facts")(facts_command)
typer_app.command()(info)
typer_app.command("train")(train_command)
typer_app.add_typer(musicqa_app, name="musicqa")


@typer_app.callback(invoke_without_command=True)
def _before_each(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    say_warnings_plainly()  # before a command imports libraries that warn
    if version:
        print(__version__)
        raise typer.Exit


def app() -> None:
    """Run the command line.

    A closed pipe ends it quietly; an output that can't be written and a library that isn't installed with one line.
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        typer_app()
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _EXTRAS:
            raise
        print(f"error: this needs {library}, which isn't installed; run: pip install 'mu-llama[{_EXTRAS[library]}]'",
              file=sys.stderr)  # fmt: skip
        sys.exit(FAILED)
    except OSError as error:
        print(f"error: {error.strerror or error}: the output can't be written", file=sys.stderr)
        sys.exit(FAILED)
