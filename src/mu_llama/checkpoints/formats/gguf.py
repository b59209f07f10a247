"""Read a LLaMA out of GGUF, llama.cpp's format: sizes, tensors (dequantized one by one), tokenizer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mu_llama.arrays import BFLOAT16, FLOAT16, FLOAT32, Array
from mu_llama.checkpoints.formats.format import Detection, FileHead, Format, present_parts
from mu_llama.checkpoints.formats.gguf_tokenizer import read_tokenizer
from mu_llama.checkpoints.lazy_tensor import LazyTensor, file_tensor, zeros
from mu_llama.checkpoints.names import (
    OUTPUT,
    ROPE_FACTORS,
    bias_names,
    from_meta_names,
    llama3_factors,
    llama3_scaling,
    rotary_heads,
    rows_in_halves,
    unknown_keys_message,
    weight_names,
)
from mu_llama.checkpoints.spec import LlamaSpec
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.hub import refuse_lfs_pointer
from mu_llama.model.config import LlamaConfig

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")
_PLAIN = {"F32": FLOAT32, "F16": FLOAT16, "BF16": BFLOAT16}
_AGAIN = "download it again"
_MAGIC = b"GGUF"
KIND = "GGUF"


@dataclass(frozen=True)
class _Gguf:
    """What the headers of a file, or of all pieces of a split one, say."""

    path: Path
    """The file to name in errors."""
    fields: Mapping[str, Any]
    """Metadata under GGUF's names."""
    tensors: Mapping[str, LazyTensor]
    """Under GGUF's names, as they are in the file."""

    def field(self, name: str) -> Any:
        if name not in self.fields:
            raise CheckpointError(f"{self.path}: GGUF metadata lacks {name!r}; expected a whole LLaMA: {_AGAIN}")
        return self.fields[name]

    def count(self, name: str, default: int | None = None) -> int:
        value = self.fields.get(name, default) if default is not None else self.field(name)
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(f"{self.path}: {name} is {value!r}; expected one number above 0: take a plain LLaMA")
        return value


def read_gguf_llama(path: Path) -> LlamaSpec:
    """Describe the LLaMA in a GGUF; its tensors are read, and dequantized to float32, when asked for.

    Args:
        path: a file, any piece of a split one, or a folder that holds one model.

    Raises:
        CheckpointError: if it isn't GGUF, is cut short, holds another architecture, or needs something that
            this LLaMA doesn't have: other scaled angles than LLaMA-3.1's, experts, a tokenizer of another kind.
    """
    gguf = _open(path)
    names = _check_names(gguf)
    config = _config(gguf)
    tensors: dict[str, LazyTensor] = {}
    for gguf_name, value in gguf.tensors.items():
        if gguf_name != ROPE_FACTORS:
            heads = rotary_heads(gguf_name, config)
            name = f"{gguf.path}: {gguf_name!r}"
            tensors[names[gguf_name]] = value if heads is None else rows_in_halves(value, heads, config, name=name)
    biases = bias_names(config.num_hidden_layers, attention=config.attention_bias, feed_forward=config.mlp_bias)
    for name in biases.values():
        if name not in tensors:
            tensors[name] = zeros(tensors[name.replace(".bias", ".weight")].shape[:1], FLOAT32)
    return LlamaSpec(config, tensors, read_tokenizer(gguf.fields, source=str(gguf.path)), source=str(path))


def _open(path: Path) -> _Gguf:
    files = _pieces(_only_model(path) if path.is_dir() else path)
    headers = [_read_header(file) for file in files]
    gguf = _Gguf(files[0], headers[0][0], {name: value for _, tensors in headers for name, value in tensors.items()})
    architecture = gguf.field("general.architecture")
    if architecture != "llama":
        raise CheckpointError(f"{gguf.path}: architecture {architecture!r}; expected 'llama': take a LLaMA's GGUF")
    return gguf


def _only_model(folder: Path) -> Path:
    """Find the model of a folder; the pieces of a split one count once."""
    models: dict[str, Path] = {}
    for file in sorted(folder.glob("*.gguf")):
        split = _SPLIT.fullmatch(file.name)
        models.setdefault(split["stem"] if split else file.name, file)
    if len(models) != 1:
        names = ", ".join(file.name for file in models.values()) or "no .gguf file"
        raise CheckpointError(f"{folder}: holds {names}; expected one GGUF: name the file itself")
    return next(iter(models.values()))


def _pieces(path: Path) -> list[Path]:
    split = _SPLIT.fullmatch(path.name)
    if split is None:
        return [path]
    count = int(split["count"])
    files = [path.with_name(f"{split['stem']}-{index:05}-of-{count:05}.gguf") for index in range(1, count + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{path}: {', '.join(missing)} missing; expected all {count} pieces in one folder")
    return files


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, LazyTensor]]:
    import gguf

    refuse_lfs_pointer(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != _MAGIC:
            raise CheckpointError(f"{path}: isn't GGUF (starts with {magic!r}); expected a LLaMA's .gguf file")
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, OSError, IndexError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not a whole GGUF file ({error}); {_AGAIN}") from error
    if reader.byte_order != "I":
        raise CheckpointError(f"{path}: has the bytes of each number in the other order; expected little-endian GGUF")
    # The reader is dropped here: it maps the whole file into memory.
    return fields, {record.name: _describe(path, record) for record in reader.tensors}


def _describe(path: Path, record: Any) -> LazyTensor:
    import gguf

    kind, offset_bytes = record.tensor_type, int(record.data_offset)
    shape = tuple(int(size) for size in reversed(record.shape))
    if kind.name in _PLAIN:
        return file_tensor(path, offset_bytes=offset_bytes, shape=shape, dtype=_PLAIN[kind.name])
    packed = file_tensor(path, offset_bytes=offset_bytes, shape=tuple(record.data.shape), dtype=np.dtype(np.uint8))
    if not _can_dequantize(kind):
        raise CheckpointError(
            f"{path}: {record.name!r} is stored as {kind.name}, which can't be read; take the Q8_0, F16 or BF16 file"
        )

    def load() -> Array:
        values: Array = gguf.dequantize(packed.read(), kind)
        return values.reshape(shape)

    return LazyTensor(shape, FLOAT32, load)


@cache
def _can_dequantize(kind: Any) -> bool:
    """Whether the library knows a type, tried on one block of zeros."""
    import gguf

    block = gguf.quants.quant_shape_to_byte_shape((gguf.GGML_QUANT_SIZES[kind][0],), kind)
    try:
        gguf.dequantize(np.zeros(block, np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _check_names(gguf: _Gguf) -> dict[str, str]:
    """Check that the tensors are a LLaMA's, and give GGUF's names with transformers'."""
    num_layers = gguf.count("llama.block_count")
    weights = weight_names(num_layers)
    names = weights | bias_names(num_layers, attention=True, feed_forward=True)
    unknown = set(gguf.tensors) - set(names) - {ROPE_FACTORS}
    if unknown:
        raise CheckpointError(f"{unknown_keys_message(gguf.path, unknown, names)}; expected a plain LLaMA's")
    missing = [name for name in weights if name not in gguf.tensors and name != OUTPUT]
    if missing:
        raise CheckpointError(
            f"{gguf.path}: lacks {len(missing)} of {len(weights)} tensors, first {missing[0]!r}; "
            f"expected a whole LLaMA: {_AGAIN}"
        )
    return names


def _config(gguf: _Gguf) -> LlamaConfig:
    """Read the sizes off the metadata and the embedding's shape."""
    heads, hidden_size = gguf.count("llama.attention.head_count"), gguf.count("llama.embedding_length")
    head_dim = gguf.count("llama.attention.key_length", max(hidden_size // heads, 1))
    for name in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if gguf.count(name, head_dim) != head_dim:
            raise CheckpointError(f"{gguf.path}: {name} is {gguf.fields[name]}; expected the head width, {head_dim}")
    try:
        config = LlamaConfig(
            vocab_size=gguf.tensors["token_embd.weight"].shape[0],
            hidden_size=hidden_size,
            intermediate_size=gguf.count("llama.feed_forward_length"),
            num_hidden_layers=gguf.count("llama.block_count"),
            num_attention_heads=heads,
            num_key_value_heads=gguf.count("llama.attention.head_count_kv", heads),
            head_dim=head_dim,
            max_position_embeddings=gguf.count("llama.context_length"),
            # Stored as float32: 9.9999997e-06 is 1e-05.
            rms_norm_eps=float(f"{gguf.field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
            rope_theta=float(gguf.fields.get("llama.rope.freq_base", 10000.0)),
            tie_word_embeddings=OUTPUT not in gguf.tensors,
            attention_bias=any(".attn_" in name and name.endswith(".bias") for name in gguf.tensors),
            mlp_bias=any(".ffn_" in name and name.endswith(".bias") for name in gguf.tensors),
            bos_token_id=gguf.fields.get("tokenizer.ggml.bos_token_id"),
            eos_token_id=gguf.fields.get("tokenizer.ggml.eos_token_id"),
        )
    except (TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{gguf.path}: {error}; {_AGAIN}") from error
    return _with_scaled_angles(gguf, config)


def _with_scaled_angles(gguf: _Gguf, config: LlamaConfig) -> LlamaConfig:
    """Recognise LLaMA-3.1's rotary factors and refuse all other scaling."""
    kind = gguf.fields.get("llama.rope.scaling.type", "linear")
    factor = gguf.fields.get("llama.rope.scaling.factor", gguf.fields.get("llama.rope.scale_linear", 0.0))
    # As llama.cpp has it: linear unless said otherwise, and 0 means unscaled.
    if kind != "none" and (kind != "linear" or factor not in (0, 1)):
        raise CheckpointError(
            f"{gguf.path}: scales rotary angles ({kind}, factor {factor}); expected none or LLaMA-3.1's kind"
        )
    if ROPE_FACTORS not in gguf.tensors:
        return config
    stored = gguf.tensors[ROPE_FACTORS].to(FLOAT32).read()
    if bool((stored == 1).all()):
        return config
    refused = CheckpointError(f"{gguf.path}: {ROPE_FACTORS!r} scales rotary angles; expected none or LLaMA-3.1's kind")
    factor = float(f"{float(stored.max()):.6g}") if stored.shape == (config.head_dim // 2,) else 0.0
    if not factor > 0:
        raise refused
    scaled = dataclasses.replace(config, rope_scaling=llama3_scaling(factor))
    if not np.allclose(llama3_factors(scaled), stored, rtol=1e-3):
        raise refused
    return scaled


def _recognise(file: FileHead) -> Detection | None:
    if not file.head.startswith(_MAGIC):
        return None
    return Detection(file.path, KIND, f"{file.size_bytes / 1e9:.2g} GB", present_parts(llama=True, tokenizer=True))


def _read(path: Path, weights: Mapping[str, LazyTensor] | None) -> LlamaSpec:
    llama = read_gguf_llama(path)
    return llama if weights is None else dataclasses.replace(llama, tensors=from_meta_names(weights, llama.config))


FORMAT = Format(
    KIND,
    "a GGUF language model",
    role="llama",
    recognise_file=_recognise,
    parent_stands_for_it=True,
    suffix=".gguf",
    read_llama=_read,
)
