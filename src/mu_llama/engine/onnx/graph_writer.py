"""Nodes and weights of a graph: small tensors inside its file, big ones in the file of weights, linears as products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mu_llama.engine.onnx.quantize import BlockFormat, quantize_pieces
from mu_llama.engine.onnx.weights import Stored, WeightsWriter, widen

DOMAIN = "com.microsoft"
"""Of onnxruntime's own operators."""
_PIECE_ELEMENTS = 1 << 20


class GraphWriter:
    """Collects nodes, and writes weights as they are read: at most one of them is in memory.

    Args:
        weights: the file of weights.
        weights_file: its name beside the graph.
    """

    def __init__(self, weights: WeightsWriter, *, weights_file: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._weights, self._weights_file = weights, weights_file

    def node(self, kind: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any) -> None:
        """Add an operator."""
        name = f"{outputs[0]}:{kind}"
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))

    def constant(self, name: str, values: NDArray[Any]) -> None:
        """Add a small tensor, inside the graph's file."""
        self.initializers.append(onnx.numpy_helper.from_array(values, name))

    def external(self, name: str, shape: tuple[int, ...], dtype: Any, pieces: Iterable[NDArray[Any]]) -> None:
        """Add a big tensor, in the file of weights; it comes some rows at a time."""
        self._weights.add(name, shape, dtype, pieces)
        stored = self._weights.table[name]
        self.initializers.append(_external_tensor(name, stored, location=self._weights_file))

    def product(
        self,
        name: str,
        source: str,
        matrices: Iterable[Callable[[], NDArray[Any]]],
        shape: tuple[int, int],
        *,
        output: str,
        block_format: BlockFormat | None,
        accuracy_level: int,
    ) -> None:
        """Multiply by matrices that stand below each other: (..., K) to (..., N).

        Args:
            name: of the weights.
            source: name of the input.
            matrices: each reads one, (some of N, K).
            shape: (N, K).
            output: name of the result.
            block_format: to quantize in; None for float32.
            accuracy_level: of MatMulNBits.
        """
        if block_format is None:
            self.external(f"{name}.weight", shape, np.float32, float_pieces(matrices))
            self.node("FusedMatMul", [source, f"{name}.weight"], [output], domain=DOMAIN, transB=1)
            return
        inputs = [source, *self._quantized(name, matrices, block_format, shape)]
        self.node(
            "MatMulNBits", inputs, [output], domain=DOMAIN, K=shape[1], N=shape[0], bits=block_format.bits,
            block_size=block_format.block_size, accuracy_level=accuracy_level,
        )  # fmt: skip

    def _quantized(
        self,
        name: str,
        matrices: Iterable[Callable[[], NDArray[Any]]],
        block_format: BlockFormat,
        shape: tuple[int, int],
    ) -> list[str]:
        """Quantize and write; gives the names of values, scales and, where there are any, zero points."""
        blocks, num_scales, zero_bytes = block_format.row_shapes(shape[1])
        scales: list[NDArray[np.float32]] = []
        zero_points: list[NDArray[np.uint8]] = []

        def values() -> Iterator[NDArray[np.uint8]]:
            for read in matrices:
                for piece in quantize_pieces(read(), block_format):
                    scales.append(piece.scales)
                    if piece.zero_points is not None:
                        zero_points.append(piece.zero_points)
                    yield piece.values

        self.external(f"{name}.weight", (shape[0], *blocks), np.uint8, values())
        self.external(f"{name}.scales", (shape[0], num_scales), np.float32, scales)
        if not zero_points:
            return [f"{name}.weight", f"{name}.scales"]
        self.external(f"{name}.zero_points", (shape[0], zero_bytes), np.uint8, zero_points)
        return [f"{name}.weight", f"{name}.scales", f"{name}.zero_points"]


def row_pieces(matrix: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Some rows of a matrix at a time."""
    num_rows: int = max(1, _PIECE_ELEMENTS // matrix.shape[1])
    for start in range(0, len(matrix), num_rows):
        yield matrix[start : start + num_rows]


def float_pieces(matrices: Iterable[Callable[[], NDArray[Any]]]) -> Iterator[NDArray[np.float32]]:
    """Matrices in float32, some rows at a time."""
    for read in matrices:
        for piece in row_pieces(read()):
            yield widen(piece)


def _external_tensor(name: str, stored: Stored, *, location: str) -> onnx.TensorProto:
    tensor = TensorProto(
        name=name,
        dims=stored.shape,
        data_type=helper.np_dtype_to_tensor_dtype(np.dtype(stored.dtype)),
        data_location=TensorProto.EXTERNAL,
    )
    place = {"location": location, "offset": stored.offset_bytes, "length": stored.size_bytes}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
