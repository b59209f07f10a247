"""Safetensors without holding more than one tensor: describe a file's tensors, write a file as a stream."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from mu_llama.checkpoints.lazy_tensor import LazyTensor, file_tensor
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
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
        # The library checks that header and length fit together; it doesn't tell offsets.
        with safe_open(path, framework="pt"):
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
        advance: told the bytes of each tensor as it is written.

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
    value = stored.read().contiguous()
    assert (tuple(value.shape), value.dtype) == (stored.shape, stored.dtype), "a stored tensor isn't what it said"
    if value.numel():
        file.write(value.reshape(-1).view(torch.uint8).numpy().data)


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
