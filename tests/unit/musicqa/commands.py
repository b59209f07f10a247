"""`mu-llama musicqa` in this process, and its command lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from mu_llama.cli.main import typer_app

RESULTS = ("items.jsonl", "train.jsonl", "validation.jsonl", "test.jsonl")
COMMAND = [sys.executable, "-c", "from mu_llama.cli.main import app; app()", "musicqa"]
"""The same in a process of its own, for tests whose subject is the process."""


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def run(*options: str, env: Mapping[str, str] | None = None) -> Done:
    """Run a command in this process; an error that it doesn't handle fails the test."""
    done = CliRunner().invoke(typer_app, ["musicqa", *options], env=env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def building(root: Path, out: Path, *more: str) -> list[str]:
    return ["build", "--source", "musiccaps", "--root", str(root), "--out", str(out), "--json", *more]


def asking(url: str, *more: str) -> list[str]:
    return ["--writer", "endpoint", "--base-url", url, "--model", "fake", *more]


def results(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in RESULTS]
