"""`mu-llama chat`: a conversation about one audio file."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import MuLlamaError

if TYPE_CHECKING:
    from mu_llama.inference.conversation import Conversation


@opt.records_expanded
def chat(
    audio: Annotated[Path, typer.Argument(help="Audio file, or video with sound.", show_default=False)],
    model: opt.ModelOptions = opt.ModelOptions(),
    answers: opt.AnswerOptions = opt.AnswerOptions(),
) -> None:
    """Talk about one audio file; earlier turns are remembered. An empty line or ctrl-D ends it."""
    try:
        generation = opt.generation_options(answers)
        listener = opt.load_listener(model)
        conversation = listener.chat(audio, options=generation)
    except MuLlamaError as error:
        raise opt.fail(error) from None
    print(
        f"{listener.name} has encoded {audio.name!r}. Ask about it; an empty line ends the conversation.",
        file=sys.stderr,
    )
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Bytes that are not UTF-8 fail one question, not the conversation: `Conversation.stream` refuses them.
        sys.stdin.reconfigure(errors="surrogateescape")
    while question := _next_question(conversation):
        try:
            for piece in conversation.stream(question):
                print(piece, end="", flush=True)
            print(flush=True)
        except MuLlamaError as error:
            opt.say_error(error)


def _next_question(conversation: Conversation) -> str:
    """Read a line, with a prompt where a person types; empty when there is nothing more."""
    if sys.stdin is None:  # closed by the shell
        return ""
    if sys.stdin.isatty():
        conversation.read_ahead()  # while the person reads the answer
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
