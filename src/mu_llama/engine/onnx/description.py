"""What a graph is built with and of, and what its folder says of it. `graph.py` builds it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mu_llama.checkpoints.formats.onnx_graph import DESCRIPTION_FILE
from mu_llama.engine.onnx.quantize import BlockFormat
from mu_llama.engine.onnx.weights import Stored
from mu_llama.errors import CheckpointError, ConfigError

GRAPH_VERSION = 1
"""Raised when graphs are built in another way: those in the cache are built again."""
OLDEST_VERSION = 1
"""Of the graphs in model folders that still run."""
EMBEDDING = "embedding"
"""Name of the token embeddings in the table; the graph doesn't read them."""

Precision = Literal["fp32", "int8", "int4"]


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
            if not OLDEST_VERSION <= version <= GRAPH_VERSION:
                raise CheckpointError(
                    f"{path}: version is {version}; expected {OLDEST_VERSION} to {GRAPH_VERSION}: update mu-llama or "
                    "convert the model again"
                )
            table = {
                name: Stored(entry["offset_bytes"], tuple(entry["shape"]), entry["dtype"])
                for name, entry in raw.pop("table").items()
            }
            return cls(GraphOptions(**raw.pop("options")), table=table, **raw)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path}: is no description of a graph ({error}); build the graph again") from error
