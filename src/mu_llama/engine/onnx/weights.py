"""The file of weights beside a graph: written tensor by tensor, read by onnxruntime and, mapped into memory, here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mu_llama.engine.onnx.quantize import BlockFormat, QuantizedRows, dequantize

# Where each tensor begins: whole pages, so that onnxruntime can map it into memory.
_PAGE_BYTES = 4096
# GroupQueryAttention rotates columns of a head in vectors.
_HEAD_WIDTH_MULTIPLE = 16


@dataclass(frozen=True)
class Stored:
    """Where a tensor is in the file of weights."""

    offset_bytes: int
    """Of its first element."""
    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """numpy's name, or `bfloat16`."""

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape) * (2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize)


class WeightsWriter:
    """Writes tensors behind each other into the file of weights, each from whole pages on.

    Args:
        path: the file, which is made.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.bin"
        >>> with WeightsWriter(path) as writer:
        ...     writer.add("one", (2, 2), np.float32, [np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)])
        >>> Weights(path, writer.table)["one"].tolist()
        [[1.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, path: Path) -> None:
        self.table: dict[str, Stored] = {}
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, shape: tuple[int, ...], dtype: Any, pieces: Iterable[NDArray[Any]]) -> None:
        """Write a tensor, some rows at a time.

        Args:
            name: under which the table lists it.
            shape: of the whole.
            dtype: of the whole.
            pieces: its rows, in order.

        Raises:
            OSError: if the disk is full.
        """
        self._file.write(bytes(-self._file.tell() % _PAGE_BYTES))
        stored = Stored(self._file.tell(), shape, np.dtype(dtype).name)
        for piece in pieces:
            self._file.write(np.ascontiguousarray(piece, dtype).view(np.uint8).data)
        written = self._file.tell() - stored.offset_bytes
        assert written == stored.size_bytes, f"{name}: wrote {written} bytes of {stored.size_bytes}"
        self.table[name] = stored


class Weights:
    """The file of weights, mapped into memory and read-only.

    Args:
        path: the file.
        table: what is where.
    """

    def __init__(self, path: Path, table: Mapping[str, Stored]) -> None:
        self._bytes = np.memmap(path, np.uint8, mode="r")
        self._table = table

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A view of a tensor; bf16 comes as the uint16 of its bits, which `widen` takes."""
        stored = self._table[name]
        raw = self._bytes[stored.offset_bytes : stored.offset_bytes + stored.size_bytes]
        return raw.view(np.uint16 if stored.dtype == "bfloat16" else stored.dtype).reshape(stored.shape)

    def linear_rows(self, name: str, rows: slice, *, block_format: BlockFormat | None, width: int) -> NDArray[Any]:
        """Some rows (N, `width`) of a linear layer's weight, in float32.

        Args:
            name: of the linear in the graph.
            rows: which of its outputs.
            block_format: of quantized weights; None for float32.
            width: of its input.
        """
        if block_format is None:
            return np.array(self[f"{name}.weight"][rows])
        zero_points = self[f"{name}.zero_points"][rows] if f"{name}.zero_points" in self else None
        quantized = QuantizedRows(self[f"{name}.weight"][rows], self[f"{name}.scales"][rows], zero_points)
        return dequantize(quantized, block_format, num_columns=width)


def widen(values: NDArray[Any]) -> NDArray[np.float32]:
    """Turn floats of any width into float32 (float32 itself isn't copied); uint16 is taken as bits of bf16.

    Example:
        >>> widen(np.array([0x3F80, 0xC000], np.uint16)).tolist()
        [1.0, -2.0]
    """
    if values.dtype == np.uint16 or values.dtype.name == "bfloat16":
        return (values.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32, copy=False)


def stored_head_width(head_width: int) -> int:
    """Width of a head's keys and values in the graph: a multiple of 16, filled up with zeros.

    Example:
        >>> stored_head_width(64), stored_head_width(100)
        (64, 112)
    """
    return -(-head_width // _HEAD_WIDTH_MULTIPLE) * _HEAD_WIDTH_MULTIPLE


def widen_heads(values: NDArray[Any], width: int, stored_width: int, *, axis: int) -> NDArray[Any]:
    """Fill up heads with zeros along an axis of heads * width.

    A head is rotated in two halves, so each half is filled up.

    Example:
        >>> widen_heads(np.arange(1, 9), 4, 6, axis=0).tolist()
        [1, 2, 0, 3, 4, 0, 5, 6, 0, 7, 8, 0]
    """
    if width == stored_width:
        return values
    axis %= values.ndim
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    halves = values.reshape(*before, -1, width // 2, *after)  # heads * width -> (2 * heads, width / 2)
    filled = np.zeros((*halves.shape[: axis + 1], stored_width // 2, *after), values.dtype)
    filled[(slice(None),) * (axis + 1) + (slice(width // 2),)] = halves
    return filled.reshape(*before, -1, *after)
