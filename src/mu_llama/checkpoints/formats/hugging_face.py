"""Read and write a Hugging Face LLaMA folder: config, weights in one file or in shards, tokenizer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mu_llama.checkpoints.formats.format import UNKNOWN, Detection, Format, counted, present_parts, read_json
from mu_llama.checkpoints.formats.hugging_face_tokenizer import find_tokenizer, write_transformers_tokenizer
from mu_llama.checkpoints.formats.tensor_files import read_safetensors, read_torch_file, write_safetensors
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.names import from_meta_names
from mu_llama.checkpoints.spec import FAST_TOKENIZER_FILE, SENTENCEPIECE_FILE, LlamaSpec, TokenizerFile
from mu_llama.errors import CheckpointError
from mu_llama.model.config import LlamaConfig

CONFIG_FILE = "config.json"
PEFT_FILE = "adapter_config.json"
KIND = "Hugging Face LLaMA"
WEIGHTS_FILE = "model.safetensors"
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_PICKLE_FILE = "pytorch_model.bin"
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")
"""Patterns of the files with weights in a folder as transformers writes it."""
SHARD_BYTES = 2_000_000_000
# Rotary tables that older files carry; they are recomputed.
_ROTARY_TABLE = "rotary_emb.inv_freq"


def read_llama_folder(folder: Path, *, with_weights: bool = True) -> LlamaSpec:
    """Describe a LLaMA folder as transformers writes it, in safetensors or older .bin files, sharded or not.

    Args:
        folder: holds config.json, weights and tokenizer.
        with_weights: False where only sizes and tokenizer are wanted.

    Raises:
        CheckpointError: if a file is missing or damaged, or the model isn't a LLaMA.
    """
    raw = read_json(folder / CONFIG_FILE)
    config = LlamaConfig.from_json(raw, source=str(folder / CONFIG_FILE))
    if raw.get("quantization_config"):
        raise CheckpointError(f"{folder}: its weights are quantized; expected plain ones: take the unquantized model")
    stored = _read_weights(folder) if with_weights else {}
    tensors = {name: value for name, value in stored.items() if not name.endswith(_ROTARY_TABLE)}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    files = (folder / CONFIG_FILE, *(weight_files(folder) if with_weights else ()))
    tokenizer = find_tokenizer(folder, num_embeddings=config.vocab_size)
    return LlamaSpec(config, tensors, tokenizer, source=str(folder), files=files)


def _read_weights(folder: Path) -> dict[str, LazyTensor]:
    tensors: dict[str, LazyTensor] = {}
    for path in weight_files(folder):
        tensors |= read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """Find the files with the weights: one, or the shards that an index names.

    Raises:
        CheckpointError: if there is none or a shard is missing.
    """
    for name in (WEIGHTS_FILE, *_INDEX_FILES, _PICKLE_FILE):
        if (folder / name).is_file():
            return _shards_of(folder / name) if name in _INDEX_FILES else [folder / name]
    raise CheckpointError(
        f"{folder}: no weights; expected {WEIGHTS_FILE}, {', '.join(_INDEX_FILES)} or {_PICKLE_FILE}: "
        "download the model completely"
    )


def _shards_of(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no weight_map; download it again")
    shards = [index.parent / str(name) for name in sorted(set(weight_map.values()))]
    for path in shards:
        if path.parent != index.parent:
            raise CheckpointError(f"{index} names the shard {path.name!r}; expected a file name without folders")
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; {index.name} names it: download the model completely")
    return shards


def write_llama_folder(
    folder: Path,
    config: LlamaConfig,
    tensors: Mapping[str, LazyTensor],
    tokenizer: TokenizerFile,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write config, weights and tokenizer, one tensor at a time; shards that are there already are kept.

    Args:
        folder: made if it isn't there.
        config: sizes.
        tensors: under transformers' names.
        tokenizer: its file is copied.
        advance: called with the number of bytes of each tensor as it is written.

    Raises:
        OSError: if the disk is full or the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = str(next(iter(tensors.values())).dtype)
    shards = list(_shards(tensors, SHARD_BYTES))
    weight_map: dict[str, str] = {}
    for index, shard in enumerate(shards):
        name = WEIGHTS_FILE if len(shards) == 1 else f"model-{index + 1:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(shard, name)
        if (folder / name).is_file():
            advance(sum(stored.size_bytes for stored in shard.values()))
        else:
            write_safetensors(folder / name, shard, advance=advance)
    if len(shards) > 1:
        total = sum(stored.size_bytes for stored in tensors.values())
        index_text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
        (folder / _INDEX_FILES[0]).write_text(index_text + "\n", encoding="utf-8")
    if tokenizer.name == SENTENCEPIECE_FILE:
        write_transformers_tokenizer(folder, tokenizer.read(), source=tokenizer.source)
    write_llama_settings(folder, config, tokenizer, dtype=dtype)


def write_llama_settings(folder: Path, config: LlamaConfig, tokenizer: TokenizerFile, *, dtype: str) -> None:
    """Write what a LLaMA folder has beside its weights: the tokenizer, and the config last.

    Args:
        folder: made if it isn't there; one without a config is not a model.
        config: sizes.
        tokenizer: its file is copied.
        dtype: of the weights.

    Raises:
        OSError: if the disk is full or the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / tokenizer.name).write_bytes(tokenizer.read())
    content = {"architectures": ["LlamaForCausalLM"], "dtype": dtype, **config.to_json()}
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shards(tensors: Mapping[str, LazyTensor], shard_bytes: int) -> Iterator[dict[str, LazyTensor]]:
    shard: dict[str, LazyTensor] = {}
    size = 0
    for name, stored in tensors.items():
        if shard and size + stored.size_bytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = stored
        size += stored.size_bytes
    yield shard


def describe_folder(folder: Path, config: Mapping[str, Any]) -> tuple[str, bool]:
    """Say how large a transformers model is and whether its weights are there: a phrase, and whether they are."""
    num_files = sum(path.is_file() for pattern in WEIGHT_FILES for path in folder.glob(pattern))
    sizes = f"{config.get('num_hidden_layers')} layers of width {config.get('hidden_size')}"
    return f"{sizes}, " + (f"weights in {counted(num_files, 'file')}" if num_files else "no weights"), num_files > 0


def _recognise(folder: Path) -> Detection | None:
    raw = read_json(folder / CONFIG_FILE)
    model_type = raw.get("model_type")
    if model_type is None:
        return None
    if model_type != "llama":
        return Detection(folder, UNKNOWN, f"a Hugging Face model of type {model_type!r}")
    note, has_weights = describe_folder(folder, raw)
    has_tokenizer = any((folder / name).is_file() for name in (SENTENCEPIECE_FILE, FAST_TOKENIZER_FILE))
    note += "" if has_tokenizer else ", no tokenizer"
    note += ", quantized: not supported" if raw.get("quantization_config") else ""
    return Detection(folder, KIND, note, present_parts(llama=has_weights, tokenizer=has_tokenizer))


def _read(path: Path, weights: Mapping[str, LazyTensor] | None) -> LlamaSpec:
    llama = read_llama_folder(path, with_weights=weights is None)
    return llama if weights is None else dataclasses.replace(llama, tensors=from_meta_names(weights, llama.config))


def _recognise_peft(folder: Path) -> Detection | None:
    is_peft = "peft_type" in read_json(folder / PEFT_FILE)
    return Detection(folder, PEFT_FORMAT.kind, "not supported") if is_peft else None


FORMAT = Format(
    KIND,
    "a LLaMA in Hugging Face's layout",
    role="llama",
    settings_file=CONFIG_FILE,
    recognise_folder=_recognise,
    files=(*WEIGHT_FILES, "tokenizer*"),
    weight_prefixes=("model.layers.", "model.embed_tokens."),
    weights="language model weights in Hugging Face's layout",
    read_llama=_read,
)
PEFT_FORMAT = Format(
    "peft adapter",
    "a peft adapter (these aren't supported)",
    settings_file=PEFT_FILE,
    recognise_folder=_recognise_peft,
    weight_prefixes=("base_model.model.",),
    weights="weights of a peft adapter",
    is_closed=True,
)
