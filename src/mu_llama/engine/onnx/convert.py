"""Write a model as a folder whose LLaMA is an onnx graph: it opens without torch, onnx and the original weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mu_llama.arrays import BFLOAT16, FLOAT32
from mu_llama.checkpoints.convert import ENCODER_FOLDER, LLAMA_FOLDER, ConvertOptions, plan_of
from mu_llama.checkpoints.fit import check_parts
from mu_llama.checkpoints.formats.encoder import encoder_bytes, encoder_sources, encoder_spec, write_encoder
from mu_llama.checkpoints.formats.hugging_face import write_llama_settings
from mu_llama.checkpoints.formats.native import ModelConfig, write_model_files
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.lora import adapter_dtype, merged_adapter, merged_llama
from mu_llama.checkpoints.model_card import CARD_FILE, Provenance, hash_files, write_card
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.checkpoints.staging import staging
from mu_llama.engine.onnx.description import GraphOptions, Precision
from mu_llama.engine.onnx.load import graph_options
from mu_llama.engine.onnx.store import write_graph
from mu_llama.engine.protocol import SMALL_WIDTH
from mu_llama.errors import ConfigError
from mu_llama.progress import ProgressCallback, no_progress

GRAPH_FOLDER = "graph"
_HALF_BYTES, _FLOAT_BYTES = 2, 4


def chosen_precision(parts: ModelSpec, options: ConvertOptions) -> Precision:
    """Precision of a model's graph: what is asked for, else int8 for small LLaMAs and int4 for others.

    Raises:
        ConfigError: if options contradict each other or ask for what a graph can't be.
    """
    if options.dtype is None:
        return options.quantize or ("int8" if parts.llama.config.hidden_size < SMALL_WIDTH else "int4")
    if options.stored_dtype != FLOAT32:
        raise ConfigError(
            f"an onnx graph is in fp32, int8 or int4, not {options.dtype}; use --dtype fp32 or --quantize"
        )
    if options.quantize is not None:
        raise ConfigError(f"--dtype fp32 contradicts --quantize {options.quantize}; leave one out")
    return "fp32"


def convert_to_onnx(
    parts: ModelSpec, target: Path, options: ConvertOptions, *, progress: ProgressCallback = no_progress
) -> None:
    """Write a mu-llama model folder with an onnx graph; it appears whole or not at all.

    LoRA, biases and norms are merged; beside an int4 graph the adapter's big matrices are bf16. A graph that was whole
    when a kill stopped the conversion is not built again.

    Args:
        parts: what is written.
        target: the folder; must not exist, unless `overwrite` is set.
        options: how; `merge` changes nothing.
        progress: follows the work.

    Raises:
        ConfigError: if the target exists, options contradict each other, or onnxruntime can't run such a LLaMA.
        CheckpointError: if something doesn't fit together or the disk is too small.
    """
    from mu_llama.engine.onnx.graph import build_graph  # brings onnx, which takes 0.3 s to import

    built_with = graph_options(parts, chosen_precision(parts, options))
    config, llama = merged_llama(parts.llama, parts.tuning, dtype=FLOAT32, source=parts.source)
    check_parts(parts)
    adapter = merged_adapter(parts)
    if built_with.precision == "int4":
        adapter = {name: adapter_dtype(name, value, BFLOAT16) for name, value in adapter.items()}
    spec = encoder_spec(parts.encoder, options.encoder, folder=ENCODER_FOLDER)
    copied = sum(stored.size_bytes for stored in adapter.values()) + encoder_bytes(parts.encoder, spec)
    plan = plan_of(parts, options, kind=f"onnx {built_with}")
    needed = copied + graph_bytes(llama, built_with)
    with staging(target, plan, needed_bytes=needed, overwrite=options.overwrite) as folder:
        sources = (*parts.files, *parts.llama.files, *encoder_sources(parts.encoder, spec))
        hashes = hash_files(sources, progress=progress)
        write_graph(
            folder / GRAPH_FOLDER,
            lambda place: build_graph(place, config, llama, options=built_with, progress=progress),
        )
        advance = progress("writing", copied)
        write_llama_settings(folder / LLAMA_FOLDER, config, parts.llama.tokenizer, dtype="float32")
        write_encoder(folder / ENCODER_FOLDER, parts.encoder, spec, advance=advance)
        model_config = ModelConfig(
            name=parts.name,
            prompt=parts.template.name,
            adapter=parts.adapter_config,
            encoder=spec,
            llama={"folder": LLAMA_FOLDER, "graph": GRAPH_FOLDER},
            licences=dict(parts.licences),
            window=parts.window,
        )
        provenance = Provenance(hashes.result(), merged=True, dtype=built_with.precision)
        write_card(folder / CARD_FILE, parts, model_config, provenance)
        write_model_files(folder, model_config, adapter=adapter, tuning={}, advance=advance)


def graph_bytes(llama: Mapping[str, LazyTensor], options: GraphOptions) -> int:
    """About how large a graph will be, for the check of the disk.

    Args:
        llama: its weights under transformers' names.
        options: of the graph.
    """
    block_format = options.block_format()
    if block_format is None:
        per_weight = float(_FLOAT_BYTES)
    else:
        num_columns = 2 * block_format.block_size  # of 4 bits two zero points share a byte
        (num_blocks, block_bytes), num_scales, zero_bytes = block_format.row_shapes(num_columns)
        per_weight = (num_blocks * block_bytes + num_scales * _FLOAT_BYTES + zero_bytes) / num_columns
    embedding = max(per_weight, _HALF_BYTES)
    sizes = {name: math.prod(tensor.shape) for name, tensor in llama.items()}
    return round(sum(size * (embedding if "layers." not in name else per_weight) for name, size in sizes.items()))
