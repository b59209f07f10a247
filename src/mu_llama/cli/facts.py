"""`mu-llama facts`: tempo, key, loudness and length, measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import MuLlamaError

if TYPE_CHECKING:
    from mu_llama.audio.facts import Fact, Facts

_SILENT = "too little sound to measure"


def facts_command(
    audio: Annotated[list[Path], typer.Argument(help="Audio files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Measure tempo, key, loudness and length, each with a confidence from 0 to 1.

    Needs pip install 'mu-llama[facts]'. No model is loaded.
    """
    opt.say_warnings_plainly()
    num_failed = 0
    for path in audio:
        try:
            from mu_llama.audio.facts import measure_facts

            measured = measure_facts(path)
        except MuLlamaError as error:
            num_failed += 1
            if as_json:
                print(json.dumps({"audio": str(path), "error": str(error)}))
            else:
                opt.say_error(error)
            continue
        if as_json:
            print(json.dumps({"audio": str(path), **asdict(measured)}))
        else:
            _show(path, measured, heading=len(audio) > 1)
    if num_failed:
        raise typer.Exit(opt.FAILED if num_failed == len(audio) else opt.PARTLY_FAILED)


def _show(path: Path, measured: Facts, *, heading: bool) -> None:
    if heading:
        print(path)
    print(f"length    {measured.duration_s:.1f} s")
    is_silent = measured.tempo_bpm is measured.key is measured.loudness_lufs is None
    for name, fact, unit in (
        ("tempo", measured.tempo_bpm, "BPM"),
        ("key", measured.key, ""),
        ("loudness", measured.loudness_lufs, "LUFS"),
    ):
        print(f"{name:9} {_SILENT if is_silent else _in_words(fact, unit)}")


def _in_words(fact: Fact | None, unit: str) -> str:
    if fact is None:
        return "none found"
    also = f", or {' or '.join(f'{value:g}' for value in fact.alternatives)}" if fact.alternatives else ""
    return f"{fact.value} {unit}".strip() + f"{also} (confidence {fact.confidence:.2f}; {fact.method})"
