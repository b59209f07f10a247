"""A tensor that is still in its file: name, shape and dtype are known, the numbers are read when asked for.

Everything that moves weights (loading, converting, exporting) works on these, so a model of any size passes
through memory one tensor at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mu_llama.errors import CheckpointError


@dataclass(frozen=True)
class StoredTensor:
    """A tensor to be read later.

    Example:
        >>> doubled = in_memory(torch.ones(2)).map(lambda x: 2 * x)
        >>> doubled.shape, doubled.read()
        ((2,), tensor([2., 2.]))
    """

    shape: tuple[int, ...]
    """Its shape once read."""
    dtype: torch.dtype
    """Its dtype once read."""
    load: Callable[[], Tensor]
    """Reads it into fresh memory."""

    @property
    def num_elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes once read."""
        return self.num_elements * self.dtype.itemsize

    def read(self) -> Tensor:
        """Read it.

        Raises:
            CheckpointError: if the file ends too early or can't be read.
        """
        return self.load()

    def map(self, change: Callable[[Tensor], Tensor]) -> StoredTensor:
        """Apply a function that keeps shape and dtype, when the tensor is read."""
        return StoredTensor(self.shape, self.dtype, lambda: change(self.load()))

    def to(self, dtype: torch.dtype) -> StoredTensor:
        """Give it another dtype, when the tensor is read."""
        return StoredTensor(self.shape, dtype, lambda: self.load().to(dtype))


def in_memory(tensor: Tensor) -> StoredTensor:
    """Wrap a tensor that is in memory already."""
    return StoredTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> StoredTensor:
    """Stand for zeros that no file holds."""
    return StoredTensor(shape, dtype, lambda: torch.zeros(shape, dtype=dtype))


def file_tensor(
    path: Path,
    *,
    offset_bytes: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    stride: tuple[int, ...] | None = None,
) -> StoredTensor:
    """Describe a tensor by where its bytes are in a file.

    Args:
        path: the file.
        offset_bytes: where the first element is.
        shape: of the tensor.
        dtype: as stored.
        stride: in elements; None for contiguous.
    """

    def load() -> Tensor:
        num_elements = math.prod(shape)
        if stride is not None and num_elements:
            num_elements = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        flat = torch.empty(num_elements, dtype=dtype)
        _fill(flat, path, offset_bytes)
        return flat.view(shape) if stride is None else flat.as_strided(shape, stride).contiguous()

    return StoredTensor(shape, dtype, load)


def concatenate(pieces: list[StoredTensor], *, axis: int) -> StoredTensor:
    """Glue tensors along an axis, when they are read."""
    if len(pieces) == 1:
        return pieces[0]
    axis %= len(pieces[0].shape)
    shape = list(pieces[0].shape)
    shape[axis] = sum(piece.shape[axis] for piece in pieces)
    return StoredTensor(tuple(shape), pieces[0].dtype, lambda: torch.cat([p.read() for p in pieces], dim=axis))


def _fill(flat: Tensor, path: Path, offset_bytes: int) -> None:
    if flat.numel() == 0:
        return
    buffer = flat.view(torch.uint8).numpy().data
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset_bytes)
            done = 0
            while done < len(buffer):
                count = file.readinto(buffer[done:])
                if not count:
                    raise CheckpointError(f"{path}: ends too early; expected whole weights: download it again")
                done += count
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}); check the file") from error
