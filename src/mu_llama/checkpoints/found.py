"""What a path on disk turns out to be: the answer of `detect`, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mu_llama.errors import CheckpointError

Kind = Literal[
    "mu-llama folder",
    "published checkpoint",
    "ImageBind-LLM baseline",
    "Meta LLaMA",
    "Hugging Face LLaMA",
    "GGUF",
    "MERT",
    "faiss index",
    "peft adapter",
    "tokenizer",
    "part of a folder",
    "unknown",
]
"""`part of a folder`: a file such as consolidated.00.pth, which is used through the folder that it is in."""
Part = Literal["adapter", "llama", "encoder", "tokenizer"]


@dataclass(frozen=True)
class Detection:
    """What a path is."""

    path: Path
    """The file or folder."""
    kind: Kind
    """What it is as a whole."""
    note: str
    """One short phrase with what matters about it; the reason where it is unknown."""
    holds: frozenset[Part] = frozenset()
    """Which weights are in it, and whether a tokenizer is with it. A published checkpoint without `adapter`
    is a delta, one with `llama` and `encoder` a full state."""


def unreadable(path: Path, error: Exception, *, source: Path | None = None) -> Detection:
    """Turn what went wrong with a path into a find, so that it doesn't hide the other files.

    Args:
        path: the file or folder.
        error: what came of reading it.
        source: the file in it that was read.
    """
    source = source or path
    if isinstance(error, OSError):
        reason = f"can't be read ({error.strerror or error})"
    elif isinstance(error, CheckpointError):
        reason = str(error).removeprefix(f"{source}: ").split("\n")[0]
    else:
        reason = f"damaged ({type(error).__name__}: {str(error).split(chr(10))[0]})"
    return Detection(path, "unknown", reason if source == path else f"{source.name}: {reason}")
