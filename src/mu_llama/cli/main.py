"""The `mu-llama` command: its sub-commands and how errors leave it."""

from __future__ import annotations

import sys

import typer

from mu_llama import __version__
from mu_llama.cli.ask import ask
from mu_llama.cli.chat import chat
from mu_llama.cli.info import info

typer_app = typer.Typer(
    name="mu-llama",
    help="Listens to music and answers in words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
typer_app.command()(ask)
typer_app.command()(chat)
typer_app.command()(info)


@typer_app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def app() -> None:
    """Run the command line; ctrl-C and a closed pipe end it quietly."""
    try:
        typer_app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
