"""LoRA: a tuned LLaMA as one set of plain weights, merged tensor by tensor, and what the adapter keeps of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mu_llama.arrays import BFLOAT16, FLOAT16, FLOAT32, Array, DType
from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_pieces, zeros
from mu_llama.checkpoints.names import unknown_keys_message
from mu_llama.checkpoints.spec import LlamaSpec, ModelSpec
from mu_llama.errors import CheckpointError
from mu_llama.model.config import LlamaConfig

LORA_DOWN, LORA_UP = ".lora_A.weight", ".lora_B.weight"
_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_FEED_FORWARD = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
LINEARS = (*_ATTENTION, *_FEED_FORWARD)
"""The linears of a layer, under transformers' names."""
VALUE_LORA = ("conditioner.value_lora_A", "conditioner.value_lora_B")
"""The adapter's tensors that hold a LoRA merged into the value projections."""
_HALF = (BFLOAT16, FLOAT16)


def low_rank_pairs(tuning: Mapping[str, LazyTensor], *, source: object) -> dict[str, tuple[LazyTensor, LazyTensor]]:
    """Collect the LoRA pairs: module to (down, up).

    Raises:
        CheckpointError: if one half of a pair is missing.
    """
    pairs = {}
    for name in tuning:
        for half, other in ((LORA_DOWN, LORA_UP), (LORA_UP, LORA_DOWN)):
            if name.endswith(half):
                module = name.removesuffix(half)
                if module + other not in tuning:
                    raise CheckpointError(f"{source}: {name!r} came without {module + other!r}; expected both")
                pairs[module] = (tuning[module + LORA_DOWN], tuning[module + LORA_UP])
    return pairs


def merged_llama(
    llama: LlamaSpec, tuning: Mapping[str, LazyTensor], *, dtype: DType | None, source: object
) -> tuple[LlamaConfig, dict[str, LazyTensor]]:
    """Describe the tuned LLaMA as plain weights; the sums are made when a tensor is read.

    A LoRA is merged in float32; where weight and result are bf16 its factors are rounded to bf16 first, as in training.

    Args:
        llama: the LLaMA before tuning.
        tuning: LoRA pairs, biases, norms.
        dtype: of the result; None keeps what each weight is stored in.
        source: the file to name in errors.

    Returns:
        The config, with biases switched on where tuning brings them, and all weights under transformers' names.

    Raises:
        CheckpointError: if something of the tuning has no place in this LLaMA, or it is an onnx graph.
    """
    refuse_graph(llama)
    pairs = low_rank_pairs(tuning, source=source)
    tensors = dict(llama.tensors)
    for name, value in tuning.items():
        if not name.endswith((LORA_DOWN, LORA_UP)):
            tensors[name] = value
    config = dataclasses.replace(
        llama.config,
        attention_bias=llama.config.attention_bias or _has_bias(tensors, _ATTENTION),
        mlp_bias=llama.config.mlp_bias or _has_bias(tensors, _FEED_FORWARD),
    )
    for module, (down, up) in pairs.items():
        name = f"{module}.weight"
        if name not in tensors:
            raise CheckpointError(unknown_keys_message(source, [module + LORA_DOWN], llama.tensors))
        _check_pair(module, tensors[name], down, up, source=source)
    merged = {
        name: _merge(value, pairs.get(name.removesuffix(".weight")), dtype or value.dtype)
        for name, value in tensors.items()
    }
    for name, rows in _expected_biases(config, tensors).items():
        merged.setdefault(name, zeros((rows,), dtype or FLOAT32))
    return config, merged


def refuse_graph(llama: LlamaSpec) -> None:
    """Refuse a LLaMA without weights of its own.

    Raises:
        CheckpointError: if it is an onnx graph.
    """
    if llama.graph is not None:
        raise CheckpointError(
            f"{llama.graph}: an onnx graph, which onnxruntime runs as it is; expected a LLaMA's own weights: give the "
            "model that it was converted from"
        )


def _has_bias(names: Mapping[str, LazyTensor], modules: tuple[str, ...]) -> bool:
    return any(name.endswith(f"{module}.bias") for name in names for module in modules)


def _check_pair(module: str, weight: LazyTensor, down: LazyTensor, up: LazyTensor, *, source: object) -> None:
    if (up.shape[0], down.shape[-1]) != weight.shape or up.shape[1:] != down.shape[:1] or len(down.shape) != 2:
        raise CheckpointError(
            f"{source}: the LoRA of {module!r} is {up.shape} x {down.shape}; expected a fit to {weight.shape}"
        )


def _merge(value: LazyTensor, pair: tuple[LazyTensor, LazyTensor] | None, dtype: DType) -> LazyTensor:
    if pair is None:
        return value.to(dtype)
    down, up = (half.to(BFLOAT16) for half in pair) if value.dtype == dtype == BFLOAT16 else pair

    def load() -> Array:
        wide_up, wide_down = up.to(FLOAT32).read(), down.to(FLOAT32).read()
        return in_pieces(value.read(), dtype, lambda rows, which: rows + wide_up[which] @ wide_down)

    return LazyTensor(value.shape, dtype, load)


def _expected_biases(config: LlamaConfig, tensors: Mapping[str, LazyTensor]) -> dict[str, int]:
    """Name each bias the config asks for, with its length; published models lack some, which are zero."""
    modules = (_ATTENTION if config.attention_bias else ()) + (_FEED_FORWARD if config.mlp_bias else ())
    return {
        f"model.layers.{layer}.{module}.bias": tensors[weight].shape[0]
        for layer in range(config.num_hidden_layers)
        for module in modules
        if (weight := f"model.layers.{layer}.{module}.weight") in tensors
    }


def merged_adapter(parts: ModelSpec) -> dict[str, LazyTensor]:
    """The adapter's tensors, with the LoRA of the value projections, which the audio's path has to subtract again."""
    tensors = dict(parts.adapter)
    for name, stored in zip(VALUE_LORA, _value_lora(parts), strict=False):
        if name in tensors:
            raise CheckpointError(
                f"{parts.source}: a LoRA on value projections that hold a merged one already; "
                "expected an unmerged LLaMA: convert without --merge"
            )
        tensors[name] = stored
    return tensors


def _value_lora(parts: ModelSpec) -> list[LazyTensor]:
    """Stack the LoRA of the conditioned value projections to (Q, rank, H) and (Q, rows, rank), or give nothing."""
    num_layers = parts.llama.config.num_hidden_layers
    layers = range(num_layers - parts.adapter_config.num_conditioned_layers, num_layers)
    modules = [f"model.layers.{layer}.self_attn.v_proj" for layer in layers]
    pairs = [(parts.tuning.get(module + LORA_DOWN), parts.tuning.get(module + LORA_UP)) for module in modules]
    present = [(down, up) for down, up in pairs if down is not None and up is not None]
    if not present:
        return []
    rank = max(down.shape[0] for down, _ in present)
    hidden, rows = present[0][0].shape[1], present[0][1].shape[0]

    def load(half: int) -> Array:
        stacked = np.zeros((len(pairs), *((rank, hidden) if half == 0 else (rows, rank))), FLOAT32)
        for index, pair in enumerate(pairs):
            stored = pair[half]
            if stored is not None:
                num_rows, num_columns = stored.shape
                stacked[index, :num_rows, :num_columns] = stored.read()
        return stacked

    return [
        LazyTensor((len(pairs), rank, hidden), FLOAT32, lambda: load(0)),
        LazyTensor((len(pairs), rows, rank), FLOAT32, lambda: load(1)),
    ]


def adapter_dtype(name: str, value: LazyTensor, dtype: DType) -> LazyTensor:
    """Keep the bridge's matrices narrow beside a narrow LLaMA; everything else is float32."""
    if name.startswith(("adapter.blocks.", "adapter.projection.")) and len(value.shape) == 2 and dtype in _HALF:
        return value if value.dtype in _HALF else value.to(dtype)
    return value.to(FLOAT32)
