"""What a weight format brings: how its files are recognised, and how they are read.

`formats.FORMATS` lists the formats; recognition (`detect`), roles (`choose`) and reading (`load`) ask each of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.spec import EncoderSpec, LlamaSpec, ModelSpec
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

Role = Literal["model", "llama", "encoder", "knn_index"]
"""What a path can be given for."""
Part = Literal["adapter", "llama", "encoder", "tokenizer"]
"""What can be in it."""
UNKNOWN = "unknown"
PART_OF_FOLDER = "part of a folder"
"""Kind of a file such as consolidated.00.pth, which is used through the folder that it is in."""


@dataclass(frozen=True)
class Detection:
    """What a path is, before anything is loaded."""

    path: Path
    """The file or folder."""
    kind: str
    """Kind of a format, `PART_OF_FOLDER` or `UNKNOWN`."""
    note: str
    """One short phrase with what matters about it; the reason where it is unknown."""
    holds: frozenset[Part] = frozenset()
    """Which weights are in it, and whether a tokenizer is with it. A published checkpoint without `adapter`
    is a delta, one with `llama` and `encoder` a full state."""


@dataclass(frozen=True)
class FileHead:
    """The first bytes of a file that is to be recognised."""

    path: Path
    """The file."""
    head: bytes
    """Its first kilobytes."""
    size_bytes: int
    """Length of the whole file."""


@dataclass(frozen=True)
class Companions:
    """What was given beside a model, and how it is read."""

    llama: str | Path | None
    """Folder, file or hub id of a LLaMA."""
    encoder: str | Path | None
    """Folder or hub id of an audio encoder."""
    read_llama: Callable[..., LlamaSpec]
    """`load.read_llama`."""
    read_encoder: Callable[[str | Path], EncoderSpec]
    """Describes an encoder's folder or hub id."""
    packaged_llama: Callable[[str], Path | None]
    """Folder of a LLaMA that a Python distribution ships, by its name; None if there is none of that name."""


@dataclass(frozen=True)
class Format:
    """One kind of weight file or folder."""

    kind: str
    """Short name, as `mu-llama info` prints it."""
    phrase: str
    """What an error calls it, with an article."""
    role: Role | None = None
    """What it can be given for."""
    needs: frozenset[Part] = frozenset()
    """Parts without which it can't play its role."""
    recognise_file: Callable[[FileHead], Detection | None] | None = None
    """Recognises a file by its first bytes."""
    recognise_tensors: Callable[[Path, Mapping[str, LazyTensor], bool], Detection | None] | None = None
    """Recognises a safetensors or PyTorch file (True) by its tensors' names."""
    settings_file: str = ""
    """The JSON file directly in a folder that `recognise_folder` reads."""
    recognise_folder: Callable[[Path], Detection | None] | None = None
    """Recognises a folder that has the settings file; may raise CheckpointError."""
    settings_stand_for_folder: bool = False
    """Whether the settings file can be given in place of its folder."""
    parent_stands_for_it: bool = False
    """Whether the folder that it is in can be given in its place."""
    files: tuple[str, ...] = ()
    """Glob patterns of the files that make up its folder, and so aren't listed on their own."""
    weight_prefixes: tuple[str, ...] = ()
    """How tensor names of a file that is part of its folder begin."""
    weights: str = ""
    """What such a file is."""
    suffix: str = ""
    """File name ending that promises this format."""
    is_inner: bool = False
    """Whether it only ever is a folder inside a model's."""
    is_closed: bool = False
    """Whether nothing in its folder is listed on its own; a model of that kind brings its LLaMA and encoder."""
    read_llama: Callable[[Path, Mapping[str, LazyTensor] | None], LlamaSpec] | None = None
    """Describes a LLaMA. Weights out of a checkpoint, under Meta's names, take the place of its own."""
    read_model: Callable[[Path, Companions], ModelSpec] | None = None
    """Describes a whole model."""


def present_parts(**parts: bool) -> frozenset[Part]:
    """Name the parts that are present: `present_parts(llama=True, tokenizer=False)`."""
    names: tuple[Part, ...] = ("adapter", "llama", "encoder", "tokenizer")
    return frozenset(name for name in names if parts.get(name))


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that lies beside weights.

    Raises:
        CheckpointError: if the file is missing or isn't one.
    """
    refuse_lfs_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: can't be read as JSON ({error}); get it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a JSON object")
    return content
