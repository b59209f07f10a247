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

# Small enough for the processor's cache and for memory that is used again and again.
_PIECE_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class LazyTensor:
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
    """Reads it into fresh memory, which the caller may overwrite."""

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

    def map(self, change: Callable[[Tensor], Tensor]) -> LazyTensor:
        """Apply a function that keeps shape and dtype, when the tensor is read."""
        return LazyTensor(self.shape, self.dtype, lambda: change(self.load()))

    def to(self, dtype: torch.dtype) -> LazyTensor:
        """Give it another dtype, when the tensor is read."""
        return LazyTensor(self.shape, dtype, lambda: in_pieces(self.load(), dtype))


def in_memory(tensor: Tensor) -> LazyTensor:
    """Wrap a tensor that is in memory already; reading copies it."""
    return LazyTensor(tuple(tensor.shape), tensor.dtype, tensor.clone)


def in_pieces(
    value: Tensor, dtype: torch.dtype, change: Callable[[Tensor, slice], Tensor] = lambda rows, _: rows
) -> Tensor:
    """Convert a tensor some rows at a time, in its own memory where the new dtype is as wide.

    A whole model is converted this way while it is loaded: big temporaries would cost more time in page faults than
    the reading, and leave holes in the memory.

    Args:
        value: its memory may be overwritten.
        dtype: of the result.
        change: given some rows in float32 and which ones, gives the rows that take their place.

    Returns:
        The converted tensor.
    """
    if value.ndim == 0 or value.numel() == 0 or not value.is_floating_point():
        return value.to(dtype)
    value = value.contiguous()
    result = value.view(dtype) if value.dtype.itemsize == dtype.itemsize else torch.empty(value.shape, dtype=dtype)
    num_rows = max(1, _PIECE_ELEMENTS * value.shape[0] // value.numel())
    for start in range(0, value.shape[0], num_rows):
        rows = slice(start, start + num_rows)
        result[rows] = change(value[rows].float(), rows)
    return result


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> LazyTensor:
    """Stand for zeros that no file holds."""
    return LazyTensor(shape, dtype, lambda: torch.zeros(shape, dtype=dtype))


def file_tensor(
    path: Path,
    *,
    offset_bytes: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    stride: tuple[int, ...] | None = None,
) -> LazyTensor:
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

    return LazyTensor(shape, dtype, load)


def concatenate(pieces: list[LazyTensor], *, axis: int) -> LazyTensor:
    """Glue tensors along an axis, when they are read."""
    if len(pieces) == 1:
        return pieces[0]
    axis %= len(pieces[0].shape)
    shape = list(pieces[0].shape)
    shape[axis] = sum(piece.shape[axis] for piece in pieces)
    return LazyTensor(tuple(shape), pieces[0].dtype, lambda: torch.cat([p.read() for p in pieces], dim=axis))


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
