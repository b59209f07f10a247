"""Files of named tensors, safetensors and PyTorch's: described without reading their numbers, and written as a stream.

PyTorch's pickles are opened without ever letting them run code.
"""

from __future__ import annotations

import argparse
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from mu_llama.arrays import BFLOAT16, FLOAT16, FLOAT32, DType, numpy_dtype
from mu_llama.checkpoints.lazy_tensor import LazyTensor, file_tensor, stored_bytes
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

_DTYPES: dict[str, DType] = {
    "F64": np.dtype(np.float64), "F32": FLOAT32, "F16": FLOAT16, "BF16": BFLOAT16, "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32), "I16": np.dtype(np.int16), "I8": np.dtype(np.int8), "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# The header is padded so that the numbers behind it are aligned.
_ALIGNMENT_BYTES = 64


def is_safetensors(head: bytes, size_bytes: int) -> bool:
    """Whether the first bytes of a file of this size are those of safetensors."""
    return head[8:9] == b"{" and bool(struct.unpack_from("<Q", head)[0] < size_bytes)


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Describe every tensor of a file; nothing is read but its header.

    Raises:
        CheckpointError: if the file is missing or damaged, or a dtype is unknown.
    """
    refuse_lfs_pointer(path)
    try:
        # The library checks that header and length fit together; it doesn't give offsets.
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as file:
            header_bytes = struct.unpack("<Q", file.read(8))[0]
            header: dict[str, Any] = json.loads(file.read(header_bytes))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); get it again") from error
    header.pop("__metadata__", None)
    odd = [name for name, entry in header.items() if entry["dtype"] not in _DTYPES]
    if odd:
        raise CheckpointError(f"{path}: {odd[0]!r} is {header[odd[0]]['dtype']}; expected one of {', '.join(_DTYPES)}")
    return {
        name: file_tensor(
            path,
            offset_bytes=8 + header_bytes + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
            dtype=_DTYPES[entry["dtype"]],
        )
        for name, entry in header.items()
    }


def write_safetensors(
    path: Path, tensors: Mapping[str, LazyTensor], *, advance: Callable[[int], None] = lambda _: None
) -> None:
    """Write a file tensor by tensor; an existing one is replaced when the new one is whole.

    Args:
        path: where.
        tensors: read in their order, one at a time.
        advance: called with the number of bytes of each tensor as it is written.

    Raises:
        OSError: if the disk is full or the folder can't be written; no part of the file stays.
    """
    scratch = path.with_name(path.name + ".part")
    try:
        with scratch.open("wb") as file:
            file.write(_header(tensors))
            for stored in tensors.values():
                _write_tensor(file, stored)
                advance(stored.size_bytes)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _write_tensor(file: BinaryIO, stored: LazyTensor) -> None:
    if stored.num_elements:
        file.write(stored_bytes(stored).data)


def _header(tensors: Mapping[str, LazyTensor]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, stored in tensors.items():
        end = offset + stored.size_bytes
        header[name] = {"dtype": _NAMES[stored.dtype], "shape": list(stored.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT_BYTES)
    return struct.pack("<Q", len(text)) + text


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
        CheckpointError: if the file is missing, damaged, not a dictionary, or holds anything but tensors, or torch
            isn't installed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected PyTorch weights: check the path")
    refuse_lfs_pointer(path)
    stat = path.stat()
    return dict(_read(path, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=8)
def _read(path: Path, size_bytes: int, time_ns: int) -> dict[str, Any]:
    """Read a file once, though it is opened to recognise it and again to load it."""
    _check_archive(path)
    try:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError as error:
        raise CheckpointError(
            f"{path}: PyTorch's weights are read with torch, which isn't installed; run: pip install 'mu-llama[torch]'"
        ) from error
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
    tensors: dict[str, Any] = _stored(content, path)
    return tensors


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
    import torch

    if isinstance(value, torch.Tensor):
        start = value.untyped_storage()._checkpoint_offset  # as torch's notes on serialization document
        assert start is not None, "torch.load gives every fake storage its offset"
        return file_tensor(
            path,
            offset_bytes=start + int(value.storage_offset()) * value.element_size(),
            shape=tuple(value.shape),
            dtype=_dtype_of(value, path),
            stride=None if value.is_contiguous() else value.stride(),
        )
    if isinstance(value, dict):
        return {name: _stored(item, path) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stored(item, path) for item in value]
    return value


def _dtype_of(value: Any, path: Path) -> DType:
    try:
        return numpy_dtype(value.dtype)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
