"""What a graph folder holds: options it was built with, sizes, and the file of weights with its table.

Reading one needs numpy alone; `graph.py` writes it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mu_llama.engine.onnx.quantize import BlockFormat, QuantizedRows, dequantize
from mu_llama.errors import CheckpointError, ConfigError

GRAPH_VERSION = 1
"""Raised when graphs are built in another way: older ones are built again."""
MODEL_FILE, WEIGHTS_FILE, DESCRIPTION_FILE = "model.onnx", "weights.bin", "graph.json"
EMBEDDING = "embedding"
"""Name of the token embeddings in the table; the graph doesn't read them."""
# Where each tensor begins in the file of weights: whole pages, so that onnxruntime can map it into memory.
_PAGE_BYTES = 4096
# GroupQueryAttention rotates columns of a head in vectors.
_HEAD_WIDTH_MULTIPLE = 16

Precision = Literal["fp32", "int8", "int4"]


class LazyLike(Protocol):
    """A tensor to be read later, e.g. a `LazyTensor`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape once read."""
        ...

    def read(self) -> NDArray[Any]:
        """Read it into fresh memory."""
        ...


class LlamaSizes(Protocol):
    """What a graph takes from a LLaMA's config."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is built; part of its name in the cache."""

    precision: Precision = "int8"
    """Of the linear layers' weights."""
    block_size: int = 32
    """Input columns that share a scale."""
    symmetric: bool = True
    """Whether blocks have no zero point of their own."""
    head_bits: Literal[8, 4] = 8
    """Of the output embedding where layers are quantized."""
    accuracy_level: int = 4
    """Of MatMulNBits: 4 rounds activations to int8, in blocks; 1 and 0 compute in float32."""
    num_conditioned_layers: int = 0
    """Q: the last layers that have a term added to their attention's output."""
    max_positions: int | None = None
    """Longest sequence, audio tokens included; None is what the LLaMA was trained for."""

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "int8", "int4"):
            raise ConfigError(f"precision is {self.precision!r}; expected fp32, int8 or int4")

    def block_format(self, *, is_head: bool = False) -> BlockFormat | None:
        """Format of the layers' weights or of the output embedding's; None for float32."""
        if self.precision == "fp32":
            return None
        bits: Literal[8, 4] = 8 if self.precision == "int8" else 4
        return BlockFormat(self.head_bits if is_head else bits, self.block_size, self.symmetric)


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


@dataclass(frozen=True)
class GraphDescription:
    """graph.json of a graph folder."""

    options: GraphOptions
    """It was built with."""
    vocab_size: int
    """V: number of tokens."""
    hidden_size: int
    """H: width of an embedding."""
    num_layers: int
    """Of the LLaMA."""
    num_heads: int
    """Attention heads."""
    num_key_value_heads: int
    """Heads of keys and values."""
    head_width: int
    """Of one head, in the LLaMA; keys and values have `stored_head_width` of it."""
    max_positions: int
    """Longest sequence, audio tokens included."""
    table: Mapping[str, Stored]
    """Tensors in the file of weights, under the graph's names."""

    def write(self, folder: Path) -> None:
        """Write graph.json into a folder."""
        text = json.dumps({"version": GRAPH_VERSION, **dataclasses.asdict(self)})
        (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> GraphDescription:
        """Read graph.json of a folder.

        Raises:
            CheckpointError: if it is missing, damaged or of another version.
        """
        path = folder / DESCRIPTION_FILE
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            version = raw.pop("version")
            if version != GRAPH_VERSION:
                raise CheckpointError(f"{path}: version is {version}; expected {GRAPH_VERSION}: build the graph again")
            table = {
                name: Stored(entry["offset_bytes"], tuple(entry["shape"]), entry["dtype"])
                for name, entry in raw.pop("table").items()
            }
            return cls(GraphOptions(**raw.pop("options")), table=table, **raw)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path}: is no description of a graph ({error}); build the graph again") from error


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
    """Turn floats of any width into float32; uint16 is taken as bits of bf16.

    Example:
        >>> widen(np.array([0x3F80, 0xC000], np.uint16)).tolist()
        [1.0, -2.0]
    """
    if values.dtype == np.uint16 or values.dtype.name == "bfloat16":
        return (values.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32)


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
