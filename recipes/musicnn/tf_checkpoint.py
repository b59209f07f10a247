"""Reads the tensors of a TensorFlow V2 checkpoint (`.index` plus `.data`) without TensorFlow.

The index is a LevelDB sorted table from tensor name to a `BundleEntryProto`; the data file is the raw
tensors, one after another. Sources: tensorflow/core/lib/io/format.cc (the table) and
tensorflow/core/protobuf/tensor_bundle.proto (its values).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

FOOTER_BYTES = 48
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
BLOCK_TRAILER_BYTES = 5  # one byte of compression kind, four of checksum
DT_FLOAT = 1


def read_float_tensors(index: bytes, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Read every float32 tensor of a one-shard checkpoint.

    Args:
        index: contents of the `.index` file.
        data: contents of the only `.data-00000-of-00001` file.

    Returns:
        Tensors by their TensorFlow names, in the order of the index.

    Raises:
        ValueError: if the index isn't an uncompressed table or an entry reaches beyond the data.
    """
    if index[-len(TABLE_MAGIC) :] != TABLE_MAGIC:
        raise ValueError("the .index file doesn't end in the table magic; expected a TensorFlow V2 checkpoint")
    footer = index[-FOOTER_BYTES:]
    _, position = _block_handle(footer, 0)  # the meta index, not needed
    (offset, size), _ = _block_handle(footer, position)
    tensors = {}
    for _, handle in _entries(_block(index, offset, size)):
        (offset, size), _ = _block_handle(handle, 0)
        for name, value in _entries(_block(index, offset, size)):
            if not name:  # the header of the bundle
                continue
            entry = dict(_fields(value))
            if entry.get(1) != DT_FLOAT:
                continue
            start, length = int(entry.get(4, 0)), int(entry[5])
            if start + length > len(data):
                raise ValueError(f"{name.decode()} ends at byte {start + length} of {len(data)}: truncated .data file")
            tensors[name.decode()] = np.frombuffer(data[start : start + length], "<f4").reshape(
                _shape(entry.get(2, b""))
            )
    return tensors


def _varint(buffer: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7


def _block_handle(buffer: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = _varint(buffer, position)
    size, position = _varint(buffer, position)
    return (offset, size), position


def _block(table: bytes, offset: int, size: int) -> bytes:
    if table[offset + size] != 0 or len(table) < offset + size + BLOCK_TRAILER_BYTES:
        raise ValueError("the .index file holds a compressed or truncated block; expected an uncompressed table")
    return table[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (key, value) pairs of a block, whose keys share prefixes with the key before."""
    (num_restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (num_restarts + 1)
    position, key = 0, b""
    while position < end:
        num_shared, position = _varint(block, position)
        num_unshared, position = _varint(block, position)
        num_value, position = _varint(block, position)
        key = key[:num_shared] + block[position : position + num_unshared]
        position += num_unshared
        yield key, block[position : position + num_value]
        position += num_value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the (number, value) pairs of a protocol buffer message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
        elif kind == 2:
            length, position = _varint(message, position)
            yield tag >> 3, message[position : position + length]
            position += length
        elif kind == 5:
            yield tag >> 3, message[position : position + 4]
            position += 4
        else:
            raise ValueError(f"protocol buffer wire type {kind} in the .index file; expected 0, 2 or 5")


def _shape(message: int | bytes) -> tuple[int, ...]:
    assert isinstance(message, bytes)
    return tuple(int(dict(_fields(dim)).get(1, 0)) for number, dim in _fields(message) if number == 2)
