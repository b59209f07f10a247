"""A tensor that is still in its file: name, shape and dtype are known, the numbers are read when asked for.

Everything that moves weights (loading, converting, exporting) works on these, so a model of any size passes
through memory one tensor at a time. Tensors are numpy arrays, bf16 being `ml_dtypes.bfloat16`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mu_llama.arrays import FLOAT16, FLOAT32, Array, DType, empty, is_floating_point
from mu_llama.errors import CheckpointError

# Small enough for the processor's cache.
_PIECE_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class LazyTensor:
    """A tensor to be read later.

    Example:
        >>> doubled = in_memory(np.ones(2, np.float32)).map(lambda x: 2 * x)
        >>> doubled.shape, doubled.read()
        ((2,), array([2., 2.], dtype=float32))
    """

    shape: tuple[int, ...]
    """Its shape once read."""
    dtype: DType
    """Its dtype once read."""
    load: Callable[[], Array]
    """Reads it into fresh memory, which the caller may overwrite."""

    @property
    def num_elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes once read."""
        return self.num_elements * self.dtype.itemsize

    def read(self) -> Array:
        """Read it.

        Raises:
            CheckpointError: if the file ends too early or can't be read.
        """
        return self.load()

    def map(self, change: Callable[[Array], Array]) -> LazyTensor:
        """Apply a function that keeps shape and dtype, when the tensor is read."""
        return LazyTensor(self.shape, self.dtype, lambda: change(self.load()))

    def to(self, dtype: DType) -> LazyTensor:
        """Give it another dtype, when the tensor is read."""
        if dtype == self.dtype:
            return self
        return LazyTensor(self.shape, dtype, lambda: in_pieces(self.load(), dtype))


def in_memory(array: Array) -> LazyTensor:
    """Wrap an array that is in memory already; reading copies it."""
    return LazyTensor(array.shape, array.dtype, lambda: np.array(array, order="C"))


def in_pieces(value: Array, dtype: DType, change: Callable[[Array, slice], Array] = lambda rows, _: rows) -> Array:
    """Convert an array some rows at a time, in its own memory where the new dtype is as wide.

    A whole model is converted this way while it is loaded: big temporaries would cost more time in page faults than
    the reading, and leave holes in the memory.

    Args:
        value: its memory may be overwritten.
        dtype: of the result.
        change: given some rows in float32 and which ones, gives the rows that take their place; it may overwrite what
            it was given.

    Returns:
        The converted array.
    """
    if value.ndim == 0 or value.size == 0 or not is_floating_point(value.dtype):
        return value.astype(dtype)
    value = np.ascontiguousarray(value)
    result = value.view(dtype) if value.dtype.itemsize == dtype.itemsize else empty(value.shape, dtype)
    num_rows = max(1, _PIECE_ELEMENTS * value.shape[0] // value.size)
    wide = empty((min(num_rows, value.shape[0]), *value.shape[1:]), FLOAT32)
    for start in range(0, value.shape[0], num_rows):
        rows = slice(start, start + num_rows)
        piece = value[rows]
        widened = wide[: len(piece)]
        # Numbers too large for fp16 become infinite and NaN stays NaN, as in torch.
        with np.errstate(over="ignore", invalid="ignore"):
            _widen(piece, widened)
            result[rows] = change(widened, rows)
    return result


def stored_bytes(tensor: LazyTensor) -> Array:
    """Read a tensor as the bytes that a file of weights has."""
    value = tensor.read()
    assert (value.shape, value.dtype) == (tensor.shape, tensor.dtype), "a stored tensor isn't what it said"
    return value.reshape(-1).view(np.uint8)


def zeros(shape: tuple[int, ...], dtype: DType) -> LazyTensor:
    """Stand for zeros that no file holds."""
    return LazyTensor(shape, dtype, lambda: np.zeros(shape, dtype))


def file_tensor(
    path: Path,
    *,
    offset_bytes: int,
    shape: tuple[int, ...],
    dtype: DType,
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

    def load() -> Array:
        num_elements = math.prod(shape)
        if stride is not None and num_elements:
            num_elements = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        flat = empty((num_elements,), dtype)
        _fill(flat, path, offset_bytes)
        if stride is None or not num_elements:
            return flat.reshape(shape)
        return np.array(as_strided(flat, shape, [step * dtype.itemsize for step in stride]), order="C")

    return LazyTensor(shape, dtype, load)


def concatenate(pieces: list[LazyTensor], *, axis: int) -> LazyTensor:
    """Glue tensors along an axis, when they are read."""
    if len(pieces) == 1:
        return pieces[0]
    axis %= len(pieces[0].shape)
    shape = list(pieces[0].shape)
    shape[axis] = sum(piece.shape[axis] for piece in pieces)
    return LazyTensor(
        tuple(shape), pieces[0].dtype, lambda: np.concatenate([piece.read() for piece in pieces], axis=axis)
    )


def _fill(flat: Array, path: Path, offset_bytes: int) -> None:
    if flat.size == 0:
        return
    buffer = flat.view(np.uint8).data
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


_FLOAT16_INFINITY = 65536.0  # what infinity's exponent would mean if it were a number's
_FLOAT16_REBIAS = np.float32(2.0**112)
_FLOAT16_BITS_IN_FLOAT32 = np.int32(-0x70000001)  # the sign, five bits of exponent, the fraction


def _widen(value: Array, wide: Array) -> None:
    """Convert to float32 into `wide`, exactly.

    fp16 is moved into float32's bits and the exponent's bias corrected by a product, four times as fast as numpy's own
    conversion (ten times where numbers are subnormal); bf16's by ml_dtypes is faster than such a way.
    """
    if value.dtype != FLOAT16:
        wide[...] = value
        return
    bits = wide.view(np.int32)
    bits[...] = value.view(np.int16)
    bits <<= 13
    bits &= _FLOAT16_BITS_IN_FLOAT32
    wide *= _FLOAT16_REBIAS
    if not (wide.max() < _FLOAT16_INFINITY and wide.min() > -_FLOAT16_INFINITY):
        wide[...] = value
