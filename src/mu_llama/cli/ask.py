"""`mu-llama ask`: questions about one or many audio files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import MuLlamaError

if TYPE_CHECKING:
    from mu_llama.engine.sampling import GenerationOptions
    from mu_llama.inference.listener import Listener
    from mu_llama.inference.results import Answer, Failure, Spans

BATCH_SIZE = 16


@opt.records_expanded
def ask(
    audio: Annotated[list[Path], typer.Argument(help="Audio files, or videos with sound.", show_default=False)],
    question: Annotated[
        list[str], typer.Option("--question", "-q", help="What to ask; repeatable.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    model: opt.ModelOptions = opt.ModelOptions(),
    answers: opt.AnswerOptions = opt.AnswerOptions(),
    offset: opt.Offset = 0.0,
    duration: opt.Duration = None,
) -> None:
    """Ask questions about audio files.

    Exit code 0: all answered. 1: some files of several failed. 2: nothing was answered.
    """
    try:
        generation = opt.generation_options(answers)
        listener = opt.load_listener(model)
        part = {"offset_s": offset, "duration_s": duration}
        if as_json:
            failed = _print_json(listener, audio, question, generation, part)
        else:
            failed = _print_text(listener, audio, question, generation, part)
    except MuLlamaError as error:
        raise opt.fail(error) from None
    if failed:
        raise typer.Exit(opt.FAILED if failed == len(audio) * len(question) else opt.PARTLY_FAILED)


def _print_json(
    listener: Listener,
    audio: list[Path],
    question: list[str],
    generation: GenerationOptions,
    part: dict[str, Any],
) -> int:
    """Answer in batches, a line as soon as its batch is done; returns how many rows failed."""
    from mu_llama.inference.results import Failure

    failed = 0
    last_error = None
    for row in listener.iterate_many(audio, question, options=generation, batch_size=BATCH_SIZE, **part):
        print(json.dumps(_record(row)), flush=True)
        if isinstance(row, Failure):
            failed += 1
            if row.error is not last_error:
                opt.say_error(row.error)
            last_error = row.error
    return failed


def _record(row: Answer | Failure) -> dict[str, Any]:
    from mu_llama.inference.results import Failure

    if isinstance(row, Failure):
        return {"audio": row.audio, "question": row.question, "error": str(row.error)}
    return {
        "audio": row.audio,
        "question": row.question,
        "answer": row.text,
        "heard_s": [[round(start, 3), round(end, 3)] for start, end in row.heard],
        "model": row.model,
        "finish_reason": row.finish_reason,
        "num_tokens": row.num_tokens,
        "seconds": round(row.timings.total_s, 3),
    }


def _print_text(
    listener: Listener,
    audio: list[Path],
    question: list[str],
    generation: GenerationOptions,
    part: dict[str, Any],
) -> int:
    """Answer one row after the other, each piece by piece; returns how many rows failed."""
    from mu_llama.audio.file_names import distinct_names

    failed = 0
    names = distinct_names(audio)
    for path in audio:
        try:
            track = listener.listen(path, **part)
        except MuLlamaError as error:
            opt.say_error(error)
            failed += len(question)
            continue
        heading = f"{names[path]} ({_seconds(track.spans)})"
        for text in question:
            if len(audio) * len(question) > 1:
                print(f"{heading}: {text}", flush=True)
            try:
                for piece in listener.stream(track, text, options=generation):
                    print(piece, end="", flush=True)
                print(flush=True)
            except MuLlamaError as error:
                opt.say_error(error)
                failed += 1
        if len(audio) * len(question) == 1 and sys.stderr.isatty():
            print(f"[{listener.name} listened to {_seconds(track.spans)} of {names[path]}]", file=sys.stderr)
    return failed


def _seconds(spans: Spans) -> str:
    return ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in spans)
