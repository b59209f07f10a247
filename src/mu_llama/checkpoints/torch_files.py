"""Open PyTorch pickles without ever letting them run code."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from mu_llama.errors import CheckpointError

# The only class, besides tensors and plain containers, that a published checkpoint holds.
ALLOWED_CLASSES: list[Any] = [argparse.Namespace]


def read_torch_file(path: Path) -> dict[str, Any]:
    """Read a .pth or .bin file lazily from disk.

    Args:
        path: a file that torch.save wrote with its zip format.

    Returns:
        The saved dictionary; its tensors are memory-mapped.

    Raises:
        CheckpointError: if the file is missing, damaged, not a dictionary, or holds anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected PyTorch weights: check the path")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: not a whole PyTorch file (truncated, or in another format); "
            "expected a .pth that torch.save wrote: download it again"
        )
    try:
        with torch.serialization.safe_globals(ALLOWED_CLASSES):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors ({reason}); expected weights only: "
            "get the file from its official source"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{path}: can't be read ({reason}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors")
    return content
