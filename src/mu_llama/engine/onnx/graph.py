"""A LLaMA's config and tensors to an ONNX graph with its weights beside it.

Inputs: `embeds` (B, S, H), `terms` (B, Q, A) where layers are conditioned, `seqlens_k` (B,) and `total` (1,) as
GroupQueryAttention wants them, `keep` (K,): the positions of S whose logits are asked for, and `past_key_0`,
`past_value_0`, ... (B, KV heads, positions, head width). Outputs: `logits` (B, K, V), `present_key_0`, ....
Operators of the domain com.microsoft are described in onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mu_llama.engine.onnx.description import (
    EMBEDDING,
    MODEL_FILE,
    WEIGHTS_FILE,
    GraphDescription,
    GraphOptions,
    LazyLike,
    LlamaSizes,
    Stored,
    WeightsWriter,
    stored_head_width,
    widen,
    widen_heads,
)
from mu_llama.engine.onnx.quantize import BlockFormat, quantize_pieces
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.progress import ProgressCallback, no_progress

_DOMAIN = "com.microsoft"
# GroupQueryAttention exists in this domain's only version; 17 is the newest opset whose operators we use.
_OPSETS = (("", 17), (_DOMAIN, 1))
_IR_VERSION = 9
_HALF = ("float16", "bfloat16")
_USE_TORCH = "use --engine torch"


def build_graph(
    folder: Path,
    config: LlamaSizes,
    tensors: Mapping[str, LazyLike],
    *,
    options: GraphOptions,
    progress: ProgressCallback = no_progress,
) -> GraphDescription:
    """Write a graph folder; weights are read, quantized and written one tensor at a time.

    Args:
        folder: an empty one; the caller moves it to its place when it is whole.
        config: sizes of the LLaMA.
        tensors: all its weights under transformers' names; LoRA is merged, a tied output embedding left out.
        options: precision and the like.
        progress: told of every tensor, in numbers of weights.

    Returns:
        What was built.

    Raises:
        ConfigError: if onnxruntime can't run such a LLaMA.
        CheckpointError: if a weight is missing or of another shape.
        OSError: if the disk is full.
    """
    _check(config, options)
    total = sum(math.prod(tensor.shape) for tensor in tensors.values())
    if config.tie_word_embeddings:  # read again as the output embedding
        total += config.vocab_size * config.hidden_size
    advance = progress("building the graph", total)

    def read(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if name not in tensors:
            raise CheckpointError(f"weight {name!r} is missing; expected all weights of the model")
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"weight {name!r} has shape {tuple(tensors[name].shape)}; expected {shape}")
        value = tensors[name].read()
        advance(value.size)
        return value

    with WeightsWriter(folder / WEIGHTS_FILE) as writer:
        builder = _Builder(config, options, writer, read)
        model = builder.build()
    (folder / MODEL_FILE).write_bytes(model.SerializeToString())
    description = GraphDescription(
        options,
        config.vocab_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        builder.max_positions,
        writer.table,
    )
    description.write(folder)
    return description


def rotary_frequencies(config: LlamaSizes) -> NDArray[np.float32]:
    """Angles by which each pair of head columns is rotated per position: (head width / 2).

    Computed in float32 step by step as transformers does, so that late positions agree. Source of `llama3`: Meta's
    llama-models, `apply_scaling`.

    Raises:
        ConfigError: if the config scales them in a way that isn't one of default, linear and llama3.
    """
    one, base = np.float32(1), np.float32(config.rope_theta)
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies: NDArray[np.float32] = one / base**exponents
    scaling = config.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / np.float32(scaling["factor"])
    if kind != "llama3":
        raise ConfigError(
            f"the LLaMA's rope type is {kind!r}; the onnx engine has default, linear and llama3: {_USE_TORCH}"
        )
    factor, low, high = (np.float32(scaling[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    num_trained = np.float32(scaling["original_max_position_embeddings"])
    wavelengths = np.float32(2 * math.pi) / frequencies
    share = (num_trained / wavelengths - low) / (high - low)
    between = (one - share) * frequencies / factor + share * frequencies
    slowed = np.where(wavelengths > num_trained / low, frequencies / factor, between)
    return np.where(wavelengths < num_trained / high, frequencies, slowed).astype(np.float32)


def _check(config: LlamaSizes, options: GraphOptions) -> None:
    bad = []
    if config.head_dim % 2:
        bad.append(f"head_dim={config.head_dim} (expected an even number)")
    if config.num_attention_heads % config.num_key_value_heads:
        bad.append(
            f"num_key_value_heads={config.num_key_value_heads} (expected a divisor of {config.num_attention_heads})"
        )
    if options.num_conditioned_layers > config.num_hidden_layers:
        bad.append(f"num_conditioned_layers={options.num_conditioned_layers} of {config.num_hidden_layers} layers")
    if bad:
        raise ConfigError(f"the onnx engine can't run a LLaMA with {', '.join(bad)}: {_USE_TORCH}")


class _Builder:
    """Adds nodes and weights in the order in which the graph runs."""

    def __init__(self, config: LlamaSizes, options: GraphOptions, writer: WeightsWriter, read: Any) -> None:
        self.max_positions = min(
            options.max_positions or config.max_position_embeddings, config.max_position_embeddings
        )
        self.head_width = stored_head_width(config.head_dim)
        self._config, self._options, self._writer, self._read = config, options, writer, read
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def build(self) -> onnx.ModelProto:
        config, options = self._config, self._options
        self._add_embedding()
        self._add_rotary_tables()
        terms = [f"term_{index}" for index in range(options.num_conditioned_layers)]
        if terms:
            self._constant("term_sizes", np.ones(len(terms), np.int64))
            self._node("Split", ["terms", "term_sizes"], terms, axis=1)  # (B, Q, A) -> Q of (B, 1, A)
        state = "embeds"
        added: str | None = None
        for layer in range(config.num_hidden_layers):
            row = layer - config.num_hidden_layers + len(terms)
            state, added = self._layer(layer, state, added, terms[row] if row >= 0 else None)
        assert added is not None
        _, normalized = self._norm("model.norm", state, added)
        self._node("Gather", [normalized, "keep"], ["kept"], axis=1)  # (B, S, H) -> (B, K, H)
        head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        self._linear("head", "kept", [(head, config.vocab_size)], config.hidden_size, output="logits", is_head=True)
        return self._model()

    def _layer(self, layer: int, state: str, added: str | None, term: str | None) -> tuple[str, str]:
        """One layer: the residual stream and what is to be added to it, from and to."""
        config, prefix = self._config, f"model.layers.{layer}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        num_outputs = config.num_attention_heads * config.head_dim
        key_value_outputs = config.num_key_value_heads * config.head_dim
        state, normalized = self._norm(f"{prefix}.input_layernorm", state, added)
        parts = [
            (f"{attention}.q_proj", num_outputs),
            (f"{attention}.k_proj", key_value_outputs),
            (f"{attention}.v_proj", key_value_outputs),
        ]
        joined = self._linear(
            f"qkv_{layer}", normalized, parts, config.hidden_size, has_bias=config.attention_bias, pads="rows"
        )
        self._node(
            "GroupQueryAttention",
            [joined, "", "", f"past_key_{layer}", f"past_value_{layer}", "seqlens_k", "total", "cosines", "sines"],
            [f"attended_{layer}", f"present_key_{layer}", f"present_value_{layer}"],
            domain=_DOMAIN,
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
            do_rotary=1,
            rotary_interleaved=0,
            scale=config.head_dim**-0.5,
        )
        attended = f"attended_{layer}"
        if term is not None:
            self._node("Add", [attended, term], [f"conditioned_{layer}"])
            attended = f"conditioned_{layer}"
        added = self._linear(
            f"output_{layer}", attended, [(f"{attention}.o_proj", config.hidden_size)], num_outputs,
            has_bias=config.attention_bias, pads="columns",
        )  # fmt: skip
        state, normalized = self._norm(f"{prefix}.post_attention_layernorm", state, added)
        width = config.intermediate_size
        gate, up = (
            self._linear(
                f"{name}_{layer}",
                normalized,
                [(f"{mlp}.{name}_proj", width)],
                config.hidden_size,
                has_bias=config.mlp_bias,
            )
            for name in ("gate", "up")
        )
        self._node("QuickGelu", [gate], [f"activated_{layer}"], domain=_DOMAIN, alpha=1.0)  # x * sigmoid(x)
        self._node("Mul", [f"activated_{layer}", up], [f"gated_{layer}"])
        down = [(f"{mlp}.down_proj", config.hidden_size)]
        return state, self._linear(f"down_{layer}", f"gated_{layer}", down, width, has_bias=config.mlp_bias)

    def _norm(self, name: str, state: str, added: str | None) -> tuple[str, str]:
        """Add to the residual stream, if there is anything, and normalize: new stream and normalized."""
        weight = self._read(f"{name}.weight", (self._config.hidden_size,))
        self._constant(f"{name}.weight", widen(weight))
        epsilon = self._config.rms_norm_eps
        if added is None:
            self._node("SimplifiedLayerNormalization", [state, f"{name}.weight"], [name], axis=-1, epsilon=epsilon)
            return state, name
        outputs = [name, "", "", f"{name}.sum"]
        self._node(
            "SkipSimplifiedLayerNormalization", [state, added, f"{name}.weight"], outputs, domain=_DOMAIN,
            epsilon=epsilon,
        )  # fmt: skip
        return f"{name}.sum", name

    def _linear(
        self,
        name: str,
        source: str,
        parts: Sequence[tuple[str, int]],
        width: int,
        *,
        output: str | None = None,
        has_bias: bool = False,
        is_head: bool = False,
        pads: Literal["rows", "columns"] | None = None,
    ) -> str:
        """Multiply by linears of one input, as one product: (..., `width`) to (..., sum of their outputs).

        `pads` says which side of the matrices is heads, to be widened to what the attention operator takes.
        """
        output = output or f"{name}.product"
        block_format = self._options.block_format(is_head=is_head)
        matrices = (self._widened(self._read(f"{part}.weight", (rows, width)), pads) for part, rows in parts)
        num_outputs = sum(self._widened_size(rows, pads == "rows") for _, rows in parts)
        inner = self._widened_size(width, pads == "columns")
        product = f"{name}.unbiased" if has_bias else output
        if block_format is None:
            self._external(f"{name}.weight", (num_outputs, inner), np.float32, _float_pieces(matrices))
            self._node("FusedMatMul", [source, f"{name}.weight"], [product], domain=_DOMAIN, transB=1)
        else:
            inputs = [source, *self._quantized(name, matrices, block_format, (num_outputs, inner))]
            self._node(
                "MatMulNBits", inputs, [product], domain=_DOMAIN, K=inner, N=num_outputs, bits=block_format.bits,
                block_size=block_format.block_size, accuracy_level=self._options.accuracy_level,
            )  # fmt: skip
        if has_bias:
            biases = [widen(self._read(f"{part}.bias", (rows,))) for part, rows in parts]
            bias = np.concatenate(biases)
            self._constant(f"{name}.bias", self._widened(bias, pads if pads == "rows" else None))
            self._node("Add", [product, f"{name}.bias"], [output])
        return output

    def _quantized(
        self, name: str, matrices: Iterator[NDArray[Any]], block_format: BlockFormat, shape: tuple[int, int]
    ) -> list[str]:
        """Quantize and write; gives the names of values, scales and, where there are any, zero points."""
        blocks, num_scales, zero_bytes = block_format.row_shapes(shape[1])
        scales: list[NDArray[np.float32]] = []
        zero_points: list[NDArray[np.uint8]] = []

        def values() -> Iterator[NDArray[np.uint8]]:
            for matrix in matrices:
                for piece in quantize_pieces(matrix, block_format):
                    scales.append(piece.scales)
                    if piece.zero_points is not None:
                        zero_points.append(piece.zero_points)
                    yield piece.values

        self._external(f"{name}.weight", (shape[0], *blocks), np.uint8, values())
        self._external(f"{name}.scales", (shape[0], num_scales), np.float32, scales)
        if not zero_points:
            return [f"{name}.weight", f"{name}.scales"]
        self._external(f"{name}.zero_points", (shape[0], zero_bytes), np.uint8, zero_points)
        return [f"{name}.weight", f"{name}.scales", f"{name}.zero_points"]

    def _add_embedding(self) -> None:
        """Write the token embeddings, in the dtype they come in where that has 16 bits."""
        shape = (self._config.vocab_size, self._config.hidden_size)
        embedding = self._read("model.embed_tokens.weight", shape)
        narrow = embedding.dtype.name if embedding.dtype.name in _HALF else "float16"
        dtype = embedding.dtype if narrow == "bfloat16" else np.dtype(narrow)
        if self._options.precision == "fp32" and embedding.dtype.name not in _HALF:
            dtype = np.dtype(np.float32)
        self._writer.add(EMBEDDING, shape, dtype, [embedding])

    def _add_rotary_tables(self) -> None:
        positions = np.arange(self.max_positions, dtype=np.float32)
        angles = positions[:, None] * rotary_frequencies(self._config)  # (positions, head width / 2)
        angles = np.pad(angles, ((0, 0), (0, (self.head_width - self._config.head_dim) // 2)))
        for name, values in (("cosines", np.cos(angles)), ("sines", np.sin(angles))):
            self._external(name, values.shape, np.float32, [values])

    def _widened_size(self, size: int, is_heads: bool) -> int:
        return size // self._config.head_dim * self.head_width if is_heads else size

    def _widened(self, matrix: NDArray[Any], side: Literal["rows", "columns"] | None) -> NDArray[Any]:
        """Widen the heads that one side of a matrix consists of."""
        if side is None:
            return matrix
        return widen_heads(matrix, self._config.head_dim, self.head_width, axis=0 if side == "rows" else 1)

    def _node(self, kind: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any) -> None:
        name = f"{outputs[0]}:{kind}"
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))

    def _constant(self, name: str, values: NDArray[Any]) -> None:
        """A small tensor inside the graph's file."""
        self._initializers.append(onnx.numpy_helper.from_array(values, name))

    def _external(self, name: str, shape: tuple[int, ...], dtype: Any, pieces: Any) -> None:
        """A big tensor in the file of weights."""
        self._writer.add(name, shape, dtype, pieces)
        self._initializers.append(_external_tensor(name, self._writer.table[name]))

    def _model(self) -> onnx.ModelProto:
        config, options = self._config, self._options
        cache = ("B", config.num_key_value_heads, "positions", self.head_width)
        inputs = [
            _value("embeds", TensorProto.FLOAT, ("B", "S", config.hidden_size)),
            _value("seqlens_k", TensorProto.INT32, ("B",)),
            _value("total", TensorProto.INT32, (1,)),
            _value("keep", TensorProto.INT64, ("K",)),
        ]
        if options.num_conditioned_layers:
            width = config.num_attention_heads * self.head_width
            inputs.append(_value("terms", TensorProto.FLOAT, ("B", options.num_conditioned_layers, width)))
        outputs = [_value("logits", TensorProto.FLOAT, ("B", "K", config.vocab_size))]
        for layer in range(config.num_hidden_layers):
            for part in ("key", "value"):
                inputs.append(_value(f"past_{part}_{layer}", TensorProto.FLOAT, cache))
                outputs.append(_value(f"present_{part}_{layer}", TensorProto.FLOAT, cache))
        graph = helper.make_graph(self._nodes, "llama", inputs, outputs, self._initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        return model


def _float_pieces(matrices: Iterator[NDArray[Any]]) -> Iterator[NDArray[np.float32]]:
    """Matrices in float32, some rows at a time."""
    for matrix in matrices:
        num_rows = max(1, (1 << 20) // matrix.shape[1])
        for start in range(0, len(matrix), num_rows):
            yield widen(matrix[start : start + num_rows])


def _value(name: str, kind: int, shape: tuple[str | int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _external_tensor(name: str, stored: Stored) -> onnx.TensorProto:
    tensor = TensorProto(
        name=name,
        dims=stored.shape,
        data_type=helper.np_dtype_to_tensor_dtype(np.dtype(stored.dtype)),
        data_location=TensorProto.EXTERNAL,
    )
    place = {"location": WEIGHTS_FILE, "offset": stored.offset_bytes, "length": stored.size_bytes}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
