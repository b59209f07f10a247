"""One variant of MusiCNN as an ONNX graph: patches of log mel spectrogram in, tags and features out.

Topology: Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging" (2019).

Two facts make the graph several times smaller than the network, at the same precision:

- Bias, ReLU and batch normalisation are monotone, so the maximum over frequency can be taken of the bare
  correlation, and the rest done on a thirtieth to a ninety-sixth of the numbers.
- Weight decay has zeroed most front-end filters (of 561, 497 in the MSD variant and 303 in the MTT variant). What
  such a filter gives is a constant, known when the graph is made; it is added to the bias of the first mid-end
  layer and to the pooled features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mu_llama.arrays import FloatArray
from mu_llama.encoders.musicnn.network import PATCH_FRAMES
from mu_llama.encoders.musicnn.weights import FRONT_END, MIDEND, Tensors

NUM_BANDS = 96
NORM_EPSILON = 1e-3
LARGEST_INPUT = 8.0  # log10(1 + 10000 * mel) of sound ten times louder than full scale
NEGLIGIBLE = 1e-4  # a filter whose output can't move further than this is a constant
OPSET, IR_VERSION = 17, 8  # read by every onnxruntime from 1.12


def variant_graph(tensors: Tensors) -> bytes:
    """Make the ONNX model of one variant.

    Args:
        tensors: by `<layer>.<leaf>`, as `MusicnnWeights.of_variant` gives them.

    Returns:
        A serialised model. Its input `patches` is float32 (P, 187, 96), P being free; its outputs are `tag_logits`
        (P, 50), `penultimate` (P, 200) and `pooled` (P, 1506).
    """
    graph = _Graph()
    patches = graph.add("Unsqueeze", "patches", np.array([1]))  # (P, 1, frames, bands)
    layers = [_front_end_layer(graph, patches, tensors, layer) for layer in FRONT_END]
    front_end = _Channels(
        graph.add("Concat", *(layer.live for layer in layers), axis=1),
        np.concatenate([layer.is_live for layer in layers]),
        np.concatenate([layer.constants for layer in layers]),
    )
    outputs = _back_end(graph, front_end, tensors)
    free, shapes = ["P"], {"patches": [PATCH_FRAMES, NUM_BANDS], **outputs}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, free + shape) for name, shape in shapes.items()
    }
    body = helper.make_graph(graph.nodes, "musicnn", [values.pop("patches")], list(values.values()), graph.initializers)
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="mu-llama"
    )
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


class _Graph:
    """Nodes and constants, each under a number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str | npt.NDArray[Any], name: str | None = None, **attributes: Any) -> str:
        """Append a node, whose inputs are names of values or constants; return the name of its output."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        output = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def _constant(self, value: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add_affine(self, value: str, affine: tuple[FloatArray, FloatArray], *, num_axes_behind: int = 1) -> str:
        """Scale and shift channels that so many axes follow."""
        scale, offset = (part.reshape(-1, *[1] * num_axes_behind) if num_axes_behind else part for part in affine)
        return self.add("Add", self.add("Mul", value, scale), offset)


@dataclass(frozen=True)
class _Channels:
    """Front-end channels: the live ones are computed, the others are constants."""

    live: str
    """Name of the value of shape (P, live channels, frames)."""
    is_live: npt.NDArray[np.bool_]
    """(channels,)."""
    constants: FloatArray
    """(channels,): what each one that isn't live gives."""


def norm_affine(tensors: Tensors, layer: str) -> tuple[FloatArray, FloatArray]:
    """Return the (scale, offset) that a trained batch normalisation amounts to."""
    scale = tensors[f"{layer}.gamma"] / np.sqrt(tensors[f"{layer}.variance"] + np.float32(NORM_EPSILON))
    return scale, tensors[f"{layer}.beta"] - tensors[f"{layer}.mean"] * scale


def _front_end_layer(graph: _Graph, patches: str, tensors: Tensors, layer: str) -> _Channels:
    """Correlation, bias, ReLU, normalisation and maximum over frequency; the input's normalisation is folded in.

    Args:
        graph: is added to.
        patches: name of the value of shape (P, 1, frames, bands).
        tensors: of the variant.
        layer: such as `timbral_38` (filters of 7 frames by 38 bands) or `temporal_128` (128 frames by 1 band).
    """
    input_scale, input_offset = norm_affine(tensors, "input")
    scale, offset = norm_affine(tensors, layer)
    kernel = tensors[f"{layer}.kernel"] * input_scale  # (filters, frames, bands)
    # The input is zero-padded after its normalisation, so its offset counts only inside the patch.
    frame_bias = tensors[f"{layer}.bias"][:, None] + _sums_inside(kernel.sum(2)) * (input_offset / input_scale)
    is_live = np.abs(kernel).sum((1, 2)) * LARGEST_INPUT * np.abs(scale) > NEGLIGIBLE
    constants = scale * np.maximum(frame_bias[:, PATCH_FRAMES // 2], 0) + offset
    # Under a negative scale the minimum is needed: minus the maximum of the negative.
    sign = np.sign(scale[is_live])[:, None]
    filters = kernel[is_live] * sign[..., None]
    num_taps, num_bands = filters.shape[1:]
    padding = [(num_taps - 1) // 2, 0, num_taps // 2, 0]
    correlated = graph.add("Conv", patches, filters[:, None], kernel_shape=[num_taps, num_bands], pads=padding)
    peaks = graph.add("ReduceMax", correlated, axes=[3], keepdims=0)  # (P, filters, frames)
    biased = graph.add("Add", graph.add("Mul", peaks, sign), frame_bias[is_live])
    live = graph.add_affine(graph.add("Relu", biased), (scale[is_live], offset[is_live]))
    return _Channels(live, is_live, constants)


def _sums_inside(taps: FloatArray) -> FloatArray:
    """Sum taps (filters, taps) over what is inside the patch when they are centred at each frame: (filters, frames)."""
    num_taps = taps.shape[1]
    inside = np.pad(np.ones(PATCH_FRAMES, np.float32), ((num_taps - 1) // 2, num_taps // 2))
    return taps @ np.lib.stride_tricks.sliding_window_view(inside, num_taps).T


def _back_end(graph: _Graph, front_end: _Channels, tensors: Tensors) -> dict[str, list[int]]:
    """Mid-end (three convolutions over time), pooling over time and dense layers; gives names and shapes of outputs."""
    layers = [front_end.live]
    for layer in MIDEND:
        normed = _midend_layer(graph, layers[-1], front_end if layer == MIDEND[0] else None, tensors, layer)
        layers.append(normed if layer == MIDEND[0] else graph.add("Add", normed, layers[-1]))
    pooled = _pool(graph, layers, front_end, num_midend=sum(len(tensors[f"{layer}.bias"]) for layer in MIDEND))
    pooled_scale, pooled_offset = norm_affine(tensors, "pooled")
    kernel, bias = tensors["penultimate.kernel"], tensors["penultimate.bias"]
    shift = (kernel.astype(np.float64) @ pooled_offset.astype(np.float64)).astype(np.float32)
    dense = graph.add("Gemm", pooled, (kernel * pooled_scale).T, bias + shift)
    scale, offset = norm_affine(tensors, "penultimate")
    scaled = graph.add("Mul", graph.add("Relu", dense), scale)
    penultimate = graph.add("Add", scaled, offset, name="penultimate")
    graph.add("Gemm", penultimate, tensors["tags.kernel"].T, tensors["tags.bias"], name="tag_logits")
    num_pooled = kernel.shape[1]
    return {"tag_logits": [len(tensors["tags.bias"])], "penultimate": [len(bias)], "pooled": [num_pooled]}


def _midend_layer(graph: _Graph, channels: str, front_end: _Channels | None, tensors: Tensors, layer: str) -> str:
    """Convolution over time, ReLU and normalisation; of the front end only live channels are convolved."""
    kernel = tensors[f"{layer}.kernel"].transpose(0, 2, 1)  # (filters, channels, taps)
    bias = tensors[f"{layer}.bias"][:, None]
    if front_end is not None:
        constant = kernel[:, ~front_end.is_live] * front_end.constants[~front_end.is_live][:, None]
        bias = bias + _sums_inside(constant.sum(1))  # constants are zero-padded too
        kernel = kernel[:, front_end.is_live]
    reach = kernel.shape[2] // 2
    convolved = graph.add("Conv", channels, kernel, kernel_shape=[kernel.shape[2]], pads=[reach, reach])
    return graph.add_affine(graph.add("Relu", graph.add("Add", convolved, bias)), norm_affine(tensors, layer))


def _pool(graph: _Graph, layers: list[str], front_end: _Channels, *, num_midend: int) -> str:
    """Maximum and mean over time of all channels, interleaved: (P, 2 * channels)."""
    computed = graph.add("Concat", *layers, axis=1)
    peaks = graph.add("ReduceMax", computed, axes=[2], keepdims=0)
    means = graph.add("ReduceMean", computed, axes=[2], keepdims=0)
    both = graph.add("Concat", peaks, means, axis=1)
    is_computed = np.concatenate([front_end.is_live, np.ones(num_midend, bool)])
    num_computed = int(is_computed.sum())
    place = np.where(is_computed, np.cumsum(is_computed) - 1, 0)
    gathered = graph.add("Gather", both, np.stack([place, place + num_computed], -1).reshape(-1), axis=1)
    constants = np.concatenate([front_end.constants, np.zeros(num_midend, np.float32)])
    return graph.add("Where", np.repeat(is_computed, 2), gathered, np.repeat(constants, 2), name="pooled")
