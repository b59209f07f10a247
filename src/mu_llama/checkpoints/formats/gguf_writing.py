"""Write a LLaMA as GGUF, for llama.cpp and all that is built on it, tensor by tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu_llama.arrays import BFLOAT16, FLOAT16, FLOAT32
from mu_llama.checkpoints.formats.gguf_tokenizer import tokenizer_fields
from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_memory, stored_bytes
from mu_llama.checkpoints.names import (
    OUTPUT,
    ROPE_FACTORS,
    bias_names,
    halves_to_interleaved,
    llama3_factors,
    rotary_heads,
    unknown_keys_message,
    weight_names,
)
from mu_llama.checkpoints.spec import TokenizerFile
from mu_llama.errors import CheckpointError
from mu_llama.model.config import LlamaConfig

WITHOUT_AUDIO = (
    "Language model only: the audio adapter isn't part of a GGUF, so this file reads and writes text but hears nothing."
)
"""Ends the description in every file."""
_KINDS = {FLOAT32: "F32", FLOAT16: "F16", BFLOAT16: "BF16"}
_FILE_KINDS = {FLOAT32: "ALL_F32", FLOAT16: "MOSTLY_F16", BFLOAT16: "MOSTLY_BF16"}


@dataclass(frozen=True)
class _Entry:
    name: str
    """GGUF's."""
    stored: LazyTensor
    """As it goes into the file."""
    source_bytes: int
    """What it was in the caller's tensors."""


def write_gguf(
    path: Path,
    config: LlamaConfig,
    tensors: Mapping[str, LazyTensor],
    tokenizer: TokenizerFile,
    *,
    name: str,
    description: str,
    licence: str | None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a file; an existing one is replaced when the new one is whole.

    Matrices keep their dtype; norms and biases become float32, as llama.cpp wants them.

    Args:
        path: where.
        config: sizes.
        tensors: plain weights, and maybe biases, under transformers' names; read one at a time.
        tokenizer: of this LLaMA.
        name: of the model.
        description: what it is; that it has no audio adapter is added.
        licence: of the weights, best as an SPDX id.
        advance: called with the number of bytes of each of `tensors` as it is written.

    Raises:
        CheckpointError: if tensors are missing or unknown, or GGUF has no place for something of this LLaMA.
        OSError: if the disk is full or the folder can't be written; no part of the file stays.
    """
    import gguf

    entries = _entries(config, tensors, source=path)
    dtypes = Counter(entry.stored.dtype for entry in entries if len(entry.stored.shape) > 1)
    fields = {
        "general.type": "model",
        "general.name": name,
        "general.description": f"{description} {WITHOUT_AUDIO}".strip(),
        "general.license": licence,
        "general.file_type": int(gguf.LlamaFileType[_FILE_KINDS[dtypes.most_common(1)[0][0]]]),
        **_sizes(config),
        **tokenizer_fields(tokenizer, config),
    }
    scratch = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(scratch, "llama")
    try:
        for key, value in fields.items():
            _add_field(writer, key, value)
        for entry in entries:
            _add_tensor(writer, entry)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in entries:
            _write_tensor(writer, entry)
            advance(entry.source_bytes)
        writer.close()
        scratch.replace(path)
    finally:
        with suppress(OSError):  # closing flushes, which fails again on a full disk
            writer.close()
        scratch.unlink(missing_ok=True)


def _entries(config: LlamaConfig, tensors: Mapping[str, LazyTensor], *, source: Path) -> list[_Entry]:
    """Name every tensor as GGUF does, in llama.cpp's dtypes and order of rows."""
    weights = weight_names(config.num_hidden_layers)
    if config.tie_word_embeddings:
        del weights[OUTPUT]
    names = weights | bias_names(config.num_hidden_layers, attention=True, feed_forward=True)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    unknown = set(tensors) - set(names.values()) - tied
    if unknown:
        raise CheckpointError(f"{unknown_keys_message(source, unknown, names.values())}; GGUF has no place for them")
    missing = [name for name in weights.values() if name not in tensors]
    if missing:
        raise CheckpointError(f"{source}: {missing[0]!r} isn't among the weights to write; expected a whole LLaMA")
    entries = _scaled_angles(config, source=source)
    for gguf_name, name in names.items():
        if name in tensors:
            stored = _as_llama_cpp(tensors[name], rotary_heads(gguf_name, config), name=name, source=source)
            entries.append(_Entry(gguf_name, stored, tensors[name].size_bytes))
    return entries


def _as_llama_cpp(stored: LazyTensor, heads: int | None, *, name: str, source: Path) -> LazyTensor:
    if stored.dtype not in _KINDS:
        raise CheckpointError(f"{source}: {name!r} is {stored.dtype}; expected float16, bfloat16 or float32 for GGUF")
    if len(stored.shape) == 1:
        stored = stored.to(FLOAT32)
    return stored if heads is None else stored.map(lambda rows: halves_to_interleaved(rows, heads))


def _scaled_angles(config: LlamaConfig, *, source: Path) -> list[_Entry]:
    kind = "default" if config.rope_scaling is None else config.rope_scaling["rope_type"]
    if kind not in ("default", "llama3"):
        raise CheckpointError(f"{source}: rope type {kind!r}; expected 'default' or 'llama3' for GGUF")
    return [_Entry(ROPE_FACTORS, in_memory(llama3_factors(config)), 0)] if kind == "llama3" else []


def _sizes(config: LlamaConfig) -> dict[str, Any]:
    return {
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": float(config.rope_theta),
        "llama.vocab_size": config.vocab_size,
    }


def _add_field(writer: Any, key: str, value: Any) -> None:
    if value is None:
        return
    adders = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    adders.get(type(value), writer.add_array)(key, value)


def _add_tensor(writer: Any, entry: _Entry) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType[_KINDS[entry.stored.dtype]]
    # The library doesn't know numpy's bfloat16; beside `raw_dtype` a dtype only says that the shape counts numbers.
    writer.add_tensor_info(entry.name, entry.stored.shape, np.dtype(np.uint16), entry.stored.size_bytes, raw_dtype=kind)


def _write_tensor(writer: Any, entry: _Entry) -> None:
    writer.write_tensor_data(stored_bytes(entry.stored))
