"""Open PyTorch pickles without ever letting them run code, and without reading their numbers."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from mu_llama.checkpoints.lazy_tensor import file_tensor
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

# The only class, besides tensors and plain containers, that a published checkpoint holds.
ALLOWED_CLASSES: list[Any] = [argparse.Namespace]
_ZIP = b"PK\x03\x04"
_SUFFIXES = {".pth", ".pt", ".bin", ".ckpt"}


def is_torch_file(path: Path, head: bytes) -> bool:
    """Whether a file's first bytes, or its name, are those of PyTorch weights."""
    return (head.startswith(_ZIP) and b"data.pkl" in head[:300]) or path.suffix in _SUFFIXES


def read_torch_file(path: Path) -> dict[str, Any]:
    """Read what a .pth or .bin file holds; tensors stay on disk.

    Args:
        path: a file that torch.save wrote with its zip format.

    Returns:
        The saved dictionary, each tensor in it replaced by a `LazyTensor`.

    Raises:
        CheckpointError: if the file is missing, damaged, not a dictionary, or holds anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected PyTorch weights: check the path")
    refuse_lfs_pointer(path)
    stat = path.stat()
    return dict(_read(path, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=8)
def _read(path: Path, size_bytes: int, time_ns: int) -> dict[str, Any]:
    """Read a file once, though it is looked at to recognise it and again to load it."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    _check_archive(path)
    try:
        # Fake tensors have no numbers, but know where theirs are in the file.
        with FakeTensorMode(), torch.serialization.safe_globals(ALLOWED_CLASSES):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors ({reason}); expected weights only: "
            "get the file from its official source"
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{path}: can't be read ({reason}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors")
    found: dict[str, Any] = _stored(content, path)
    return found


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except Exception as error:  # a damaged directory raises anything
        raise CheckpointError(
            f"{path}: not a whole PyTorch file (truncated, or in another format); "
            "expected a .pth that torch.save wrote: download it again"
        ) from error
    if packed:
        raise CheckpointError(f"{path}: {packed[0]!r} in it is compressed; expected a .pth as torch.save wrote it")


def _stored(value: Any, path: Path) -> Any:
    """Replace fake tensors by where they are in the file."""
    if isinstance(value, torch.Tensor):
        start = value.untyped_storage()._checkpoint_offset  # as torch's notes on serialization document
        assert start is not None, "torch.load gives every fake storage its offset"
        return file_tensor(
            path,
            offset_bytes=start + int(value.storage_offset()) * value.element_size(),
            shape=tuple(value.shape),
            dtype=value.dtype,
            stride=None if value.is_contiguous() else value.stride(),
        )
    if isinstance(value, dict):
        return {name: _stored(item, path) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stored(item, path) for item in value]
    return value
