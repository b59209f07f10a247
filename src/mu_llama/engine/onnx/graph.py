"""A LLaMA's config and tensors to an ONNX graph with its weights beside it.

Inputs: `embeds` (B, S, H), `terms` (B, Q, A) where layers are conditioned, `seqlens_k` (B,) and `total` (1,) as
GroupQueryAttention wants them, `keep` (K,): the positions of S whose logits are asked for, and `past_key_0`,
`past_value_0`, ... (B, KV heads, positions, head width). Outputs: `logits` (B, K, V), `present_key_0`, ....
Operators of the domain com.microsoft are described in onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mu_llama.checkpoints.formats.onnx_graph import GRAPH_FILE, GRAPH_WEIGHTS_FILE
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.engine.onnx.description import EMBEDDING, GraphDescription, GraphOptions
from mu_llama.engine.onnx.graph_writer import DOMAIN, GraphWriter, row_pieces
from mu_llama.engine.onnx.rotary import USE_TORCH, rotary_tables
from mu_llama.engine.onnx.weights import WeightsWriter, stored_head_width, widen, widen_heads
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.model.config import LlamaConfig
from mu_llama.progress import ProgressCallback, no_progress

# GroupQueryAttention exists in this domain's only version; 17 is the newest opset whose operators we use.
_OPSETS = (("", 17), (DOMAIN, 1))
_IR_VERSION = 9
_HALF = ("float16", "bfloat16")


def build_graph(
    folder: Path,
    config: LlamaConfig,
    tensors: Mapping[str, LazyTensor],
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
        progress: called after every tensor with its number of weights.

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

    with WeightsWriter(folder / GRAPH_WEIGHTS_FILE) as writer:
        builder = _Builder(config, options, writer, read)
        model = builder.build()
    (folder / GRAPH_FILE).write_bytes(model.SerializeToString())
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


def _check(config: LlamaConfig, options: GraphOptions) -> None:
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
        raise ConfigError(f"the onnx engine can't run a LLaMA with {', '.join(bad)}: {USE_TORCH}")


class _Builder:
    """Adds nodes and weights in the order in which the graph runs."""

    def __init__(self, config: LlamaConfig, options: GraphOptions, writer: WeightsWriter, read: Any) -> None:
        self.max_positions = min(
            options.max_positions or config.max_position_embeddings, config.max_position_embeddings
        )
        self.head_width = stored_head_width(config.head_dim)
        self._config, self._options, self._writer, self._read = config, options, writer, read
        self._graph = GraphWriter(writer, weights_file=GRAPH_WEIGHTS_FILE)

    def build(self) -> onnx.ModelProto:
        config, options = self._config, self._options
        self._add_embedding()
        self._add_rotary_tables()
        terms = [f"term_{index}" for index in range(options.num_conditioned_layers)]
        if terms:
            self._graph.constant("term_sizes", np.ones(len(terms), np.int64))
            self._graph.node("Split", ["terms", "term_sizes"], terms, axis=1)  # (B, Q, A) -> Q of (B, 1, A)
        state = "embeds"
        added: str | None = None
        for layer in range(config.num_hidden_layers):
            row = layer - config.num_hidden_layers + len(terms)
            state, added = self._layer(layer, state, added, terms[row] if row >= 0 else None)
        assert added is not None
        _, normalized = self._norm("model.norm", state, added)
        self._graph.node("Gather", [normalized, "keep"], ["asked_for"], axis=1)  # (B, S, H) -> (B, K, H)
        head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
        shape = (config.vocab_size, config.hidden_size)
        self._graph.product(
            "head", "asked_for", [partial(self._read, f"{head}.weight", shape)], shape, output="logits",
            block_format=options.block_format(is_head=True), accuracy_level=options.accuracy_level,
        )  # fmt: skip
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
            f"qkv_{layer}", normalized, parts, config.hidden_size, has_bias=config.attention_bias, heads="rows"
        )
        self._graph.node(
            "GroupQueryAttention",
            [joined, "", "", f"past_key_{layer}", f"past_value_{layer}", "seqlens_k", "total", "cosines", "sines"],
            [f"attended_{layer}", f"present_key_{layer}", f"present_value_{layer}"],
            domain=DOMAIN,
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
            do_rotary=1,
            rotary_interleaved=0,
            scale=config.head_dim**-0.5,
        )
        attended = f"attended_{layer}"
        if term is not None:
            self._graph.node("Add", [attended, term], [f"conditioned_{layer}"])
            attended = f"conditioned_{layer}"
        added = self._linear(
            f"output_{layer}", attended, [(f"{attention}.o_proj", config.hidden_size)], num_outputs,
            has_bias=config.attention_bias, heads="columns",
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
        self._graph.node("QuickGelu", [gate], [f"activated_{layer}"], domain=DOMAIN, alpha=1.0)  # x * sigmoid(x)
        self._graph.node("Mul", [f"activated_{layer}", up], [f"gated_{layer}"])
        down = [(f"{mlp}.down_proj", config.hidden_size)]
        return state, self._linear(f"down_{layer}", f"gated_{layer}", down, width, has_bias=config.mlp_bias)

    def _norm(self, name: str, state: str, added: str | None) -> tuple[str, str]:
        """Add to the residual stream, if there is anything, and normalize: new stream and normalized."""
        weight = self._read(f"{name}.weight", (self._config.hidden_size,))
        self._graph.constant(f"{name}.weight", widen(weight))
        epsilon = self._config.rms_norm_eps
        if added is None:
            self._graph.node(
                "SimplifiedLayerNormalization", [state, f"{name}.weight"], [name], axis=-1, epsilon=epsilon
            )
            return state, name
        outputs = [name, "", "", f"{name}.sum"]
        self._graph.node(
            "SkipSimplifiedLayerNormalization", [state, added, f"{name}.weight"], outputs, domain=DOMAIN,
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
        has_bias: bool = False,
        heads: Literal["rows", "columns"] | None = None,
    ) -> str:
        """Multiply by linears of one input, as one product: (..., `width`) to (..., sum of their outputs).

        `heads` says which side of the matrices is heads, to be widened to what the attention operator takes.
        """
        config, output = self._config, f"{name}.product"
        axis = {None: None, "rows": 0, "columns": 1}[heads]
        matrices = [partial(self._read_widened, f"{part}.weight", (rows, width), axis) for part, rows in parts]
        wider = self.head_width / config.head_dim
        num_outputs = sum(rows for _, rows in parts)
        shape = (round(num_outputs * (wider if axis == 0 else 1)), round(width * (wider if axis == 1 else 1)))
        self._graph.product(
            name, source, matrices, shape, output=f"{name}.unbiased" if has_bias else output,
            block_format=self._options.block_format(), accuracy_level=self._options.accuracy_level,
        )  # fmt: skip
        if has_bias:
            bias_axis = 0 if axis == 0 else None
            biases = [self._read_widened(f"{part}.bias", (rows,), bias_axis) for part, rows in parts]
            self._graph.constant(f"{name}.bias", widen(np.concatenate(biases)))
            self._graph.node("Add", [f"{name}.unbiased", f"{name}.bias"], [output])
        return output

    def _read_widened(self, name: str, shape: tuple[int, ...], axis: int | None) -> NDArray[Any]:
        """Read a weight and widen the heads along an axis."""
        values = self._read(name, shape)
        return values if axis is None else widen_heads(values, self._config.head_dim, self.head_width, axis=axis)

    def _add_embedding(self) -> None:
        """Write the token embeddings, in the dtype they come in where that has 16 bits."""
        shape = (self._config.vocab_size, self._config.hidden_size)
        embedding = self._read("model.embed_tokens.weight", shape)
        narrow = embedding.dtype.name if embedding.dtype.name in _HALF else "float16"
        dtype = embedding.dtype if narrow == "bfloat16" else np.dtype(narrow)
        if self._options.precision == "fp32" and embedding.dtype.name not in _HALF:
            dtype = np.dtype(np.float32)
        self._writer.add(EMBEDDING, shape, dtype, row_pieces(embedding))

    def _add_rotary_tables(self) -> None:
        tables = rotary_tables(self._config, num_positions=self.max_positions, width=self.head_width // 2)
        for name, values in zip(("cosines", "sines"), tables, strict=True):
            self._graph.external(name, values.shape, np.float32, [values])

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
        graph = helper.make_graph(self._graph.nodes, "llama", inputs, outputs, self._graph.initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        return model


def _value(name: str, kind: int, shape: tuple[str | int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
