"""Weights in blocks of 8 or 4 bits, in the layout of onnxruntime's MatMulNBits.

Each block of a row's consecutive input columns shares a scale, and a zero point where the format is asymmetric:
`weight = (quantized - zero_point) * scale`. Source of the layout: MatMulNBits in onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mu_llama.errors import ConfigError

# Weights quantized at a time: few enough that all temporaries stay in the processor's cache.
_PIECE_ELEMENTS = 1 << 17
_TINY = np.float32(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class BlockFormat:
    """How weights are quantized."""

    bits: Literal[8, 4] = 8
    """Of one weight."""
    block_size: int = 32
    """Input columns that share a scale: a power of two, at least 16."""
    symmetric: bool = True
    """Whether zero is in the middle of the range; otherwise each block has a zero point."""

    def __post_init__(self) -> None:
        if self.bits not in (8, 4):
            raise ConfigError(f"bits is {self.bits}; expected 8 or 4")
        if self.block_size < 16 or self.block_size & (self.block_size - 1):
            raise ConfigError(f"block_size is {self.block_size}; expected 16, 32, 64, 128 or 256")

    def num_blocks(self, num_columns: int) -> int:
        """Blocks of a row of so many columns; the last one is filled up with zeros."""
        return -(-num_columns // self.block_size)

    def row_shapes(self, num_columns: int) -> tuple[tuple[int, int], int, int]:
        """Shape of one row's quantized weights (blocks, bytes), its number of scales, its bytes of zero points."""
        blocks = self.num_blocks(num_columns)
        zero_bytes = 0 if self.symmetric else -(-blocks * self.bits // 8)
        return (blocks, self.block_size * self.bits // 8), blocks, zero_bytes


@dataclass(frozen=True)
class QuantizedRows:
    """Some rows of a matrix (N, K), quantized."""

    values: NDArray[np.uint8]
    """(N, blocks, bytes of a block); of 4 bits the first of each pair is in the lower half of the byte."""
    scales: NDArray[np.float32]
    """(N, blocks); negative where a symmetric block's largest weight is positive."""
    zero_points: NDArray[np.uint8] | None
    """(N, blocks), or of 4 bits (N, blocks / 2), packed as `values`; None where all are in the middle."""


def quantize_pieces(weight: NDArray[Any], block_format: BlockFormat) -> Iterator[QuantizedRows]:
    """Quantize some rows at a time.

    Args:
        weight: (N, K) of any float dtype.
        block_format: width, block and symmetry.
    """
    num_rows = max(1, _PIECE_ELEMENTS // weight.shape[1])
    for start in range(0, len(weight), num_rows):
        yield _quantize(weight[start : start + num_rows].astype(np.float32), block_format)


def quantize(weight: NDArray[Any], block_format: BlockFormat) -> QuantizedRows:
    """Quantize a whole matrix.

    Args:
        weight: (N, K) of any float dtype.
        block_format: width, block and symmetry.

    Example:
        >>> rows = quantize(np.ones((2, 48), np.float32), BlockFormat(bits=4, block_size=16))
        >>> rows.values.shape, rows.scales.shape
        ((2, 3, 8), (2, 3))
    """
    pieces = list(quantize_pieces(weight, block_format))
    return QuantizedRows(
        np.concatenate([piece.values for piece in pieces]),
        np.concatenate([piece.scales for piece in pieces]),
        None
        if block_format.symmetric
        else np.concatenate([piece.zero_points for piece in pieces if piece.zero_points is not None]),
    )


def dequantize(rows: QuantizedRows, block_format: BlockFormat, *, num_columns: int) -> NDArray[np.float32]:
    """Return the weights (N, `num_columns`) that quantized rows stand for."""
    values = _unpack(rows.values) if block_format.bits == 4 else rows.values
    zero: Any = np.float32(1 << (block_format.bits - 1))
    if rows.zero_points is not None:
        points = _unpack(rows.zero_points) if block_format.bits == 4 else rows.zero_points
        zero = points[:, : rows.scales.shape[1], None].astype(np.float32)
    weight: NDArray[np.float32] = (values.astype(np.float32) - zero) * rows.scales[..., None]
    return weight.reshape(len(weight), -1)[:, :num_columns]  # (N, blocks, block) -> (N, K)


def _quantize(weight: NDArray[np.float32], block_format: BlockFormat) -> QuantizedRows:
    """Quantize a piece (N, K), which is overwritten."""
    num_rows, num_columns = weight.shape
    num_padded = block_format.num_blocks(num_columns) * block_format.block_size - num_columns
    if num_padded:
        weight = np.pad(weight, ((0, 0), (0, num_padded)))
    blocks = weight.reshape(num_rows, -1, block_format.block_size)  # (N, K) -> (N, blocks, block)
    high = 1 << block_format.bits
    low_end, high_end = blocks.min(axis=2), blocks.max(axis=2)
    zero: NDArray[np.float32] | np.float32
    if block_format.symmetric:
        # The integers reach one further below zero: the weight farthest from it is put there, whatever its sign.
        farthest = np.where(high_end > -low_end, high_end, low_end)
        scales, zero = farthest / np.float32(-(high // 2)), np.float32(high // 2)
    else:
        np.minimum(low_end, 0, out=low_end)
        scales = (np.maximum(high_end, 0) - low_end) / np.float32(high - 1)
        zero = np.rint(-low_end / np.where(scales == 0, np.float32(1), scales)).clip(0, high - 1)
    scales = np.where(np.abs(scales) < _TINY, _TINY, scales).astype(np.float32)
    np.multiply(blocks, (1 / scales)[..., None], out=blocks)
    np.rint(blocks, out=blocks)
    np.add(blocks, zero if isinstance(zero, np.float32) else zero[..., None], out=blocks)
    np.clip(blocks, 0, high - 1, out=blocks)
    values = blocks.astype(np.uint8)
    points = None if isinstance(zero, np.float32) else zero.astype(np.uint8)
    if block_format.bits == 4:
        values, points = _pack(values), None if points is None else _pack(points)
    return QuantizedRows(values, scales, points)


def _pack(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two numbers below 16 a byte: (..., n) to (..., ceil(n / 2))."""
    packed = values[..., 0::2].copy()
    second = values[..., 1::2]
    packed[..., : second.shape[-1]] |= second << 4
    return packed


def _unpack(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo `_pack`; of an odd number of values a 0 comes after them."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)  # (..., n, 2) -> (..., 2n)
