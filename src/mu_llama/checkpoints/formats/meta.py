"""Read Meta's LLaMA folder: params.json, consolidated.NN.pth in one or more shards, tokenizer.model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu_llama.arrays import BFLOAT16, FLOAT16
from mu_llama.checkpoints.formats.format import Detection, Format, counted, present_parts
from mu_llama.checkpoints.formats.hugging_face import CONFIG_FILE
from mu_llama.checkpoints.formats.tensor_files import read_torch_file
from mu_llama.checkpoints.lazy_tensor import LazyTensor, concatenate
from mu_llama.checkpoints.names import count_layers, from_meta_names, parse_meta_name, unknown_keys_message
from mu_llama.checkpoints.spec import SENTENCEPIECE_FILE, LlamaSpec, TokenizerFile
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer
from mu_llama.model.config import LlamaConfig

PARAMS_FILE = "params.json"
KIND = "Meta LLaMA"
_WEIGHT_FILES = "consolidated*.pth"
# Where the shards of each module are glued together; norms are copies in every shard.
_JOIN_FIRST = ("attention.wq", "attention.wk", "attention.wv", "feed_forward.w1", "feed_forward.w3", "output")
_JOIN_LAST = ("attention.wo", "feed_forward.w2", "tok_embeddings")
# compat: the published system always makes room for so many positions, whatever the LLaMA was trained with.
MAX_POSITIONS = 8192
_LLAMA_1_EPS, _LLAMA_2_EPS = 1e-6, 1e-5
_SIZES = ("dim", "n_layers", "n_kv_heads", "vocab_size")


@dataclass(frozen=True)
class MetaParams:
    """What params.json says and the weights can't."""

    num_heads: int
    """Attention heads."""
    norm_eps: float
    """Epsilon of every RMSNorm."""
    rope_theta: float = 10000.0
    """Base of the rotary angles."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """`dim`, `n_layers`, `n_kv_heads` and `vocab_size` where they are given, to be checked against the weights."""
    source: str = PARAMS_FILE
    """The file to name in errors."""


@dataclass(frozen=True)
class MetaFolder:
    """Where the parts of a Meta LLaMA folder are."""

    params: Path
    """params.json."""
    shards: tuple[Path, ...]
    """consolidated.NN.pth in order; empty if the folder holds none."""
    tokenizer: Path
    """tokenizer.model."""


def find_meta_folder(root: Path) -> MetaFolder:
    """Find the parts, in `<root>/<type>/` with the tokenizer in `<root>`, or all in one flat folder.

    Args:
        root: the folder, or its params.json itself.

    Raises:
        CheckpointError: if params.json or tokenizer.model is nowhere, or several types are there.
    """
    if root.name == PARAMS_FILE and root.is_file():
        root = root.parent
    candidates = [root / PARAMS_FILE] if (root / PARAMS_FILE).is_file() else sorted(root.glob(f"*/{PARAMS_FILE}"))
    if len(candidates) != 1:
        came = ", ".join(path.parent.name for path in candidates) or "no params.json"
        raise CheckpointError(
            f"{root}: found {came}; expected one LLaMA (params.json and consolidated.NN.pth, in the folder or one "
            "folder below): pass that folder"
        )
    folder = candidates[0].parent
    for place in (root, folder, folder.parent):
        if (place / SENTENCEPIECE_FILE).is_file():
            return MetaFolder(candidates[0], tuple(sorted(folder.glob(_WEIGHT_FILES))), place / SENTENCEPIECE_FILE)
    raise CheckpointError(
        f"{root}: no tokenizer.model; expected LLaMA's tokenizer in {root} or {folder}: copy it there"
    )


def read_meta_params(path: Path) -> MetaParams:
    """Read params.json; keys that a newer LLaMA adds and that change nothing are passed over.

    Raises:
        CheckpointError: if it isn't JSON or lacks what is needed.
    """
    refuse_lfs_pointer(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("use_scaled_rope"):
            raise CheckpointError(f"{path}: use_scaled_rope is set; scaled rotary angles (LLaMA 3.1) aren't supported")
        params = MetaParams(
            num_heads=int(raw["n_heads"]),
            norm_eps=float(raw["norm_eps"]),
            rope_theta=float(raw.get("rope_theta", 10000.0)),
            sizes={name: int(raw[name]) for name in _SIZES if int(raw.get(name) or -1) > 0},
            source=str(path),
        )
        if params.num_heads < 1 or not 0 < params.norm_eps < 1 or not params.rope_theta > 0:
            raise ValueError(f"{params} is out of range")
        return params
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not LLaMA's params.json ({error}); expected n_heads and norm_eps") from error


def read_meta_llama(folder: MetaFolder, *, weights: Mapping[str, LazyTensor] | None = None) -> LlamaSpec:
    """Describe a LLaMA in Meta's layout.

    Args:
        folder: from `find_meta_folder`.
        weights: under Meta's names, where they come out of a checkpoint instead of the folder's shards.

    Raises:
        CheckpointError: if files are missing, or weights and params.json aren't of one model.
    """
    params = read_meta_params(folder.params)
    given = weights is not None
    if weights is None:
        weights = read_meta_tensors(folder.shards, folder.params.parent)
        _warn_of_other_params(weights, params)
    config = llama_config_from_meta(weights, params)
    tensors = from_meta_names(weights, config)
    refuse_lfs_pointer(folder.tokenizer)
    content = folder.tokenizer.read_bytes
    tokenizer = TokenizerFile(SENTENCEPIECE_FILE, str(folder.tokenizer), content, fills_embeddings=True)
    files = (folder.params, folder.tokenizer, *(() if given else folder.shards))
    return LlamaSpec(config, tensors, tokenizer, source=str(folder.params.parent), files=files)


def _warn_of_other_params(weights: Mapping[str, LazyTensor], params: MetaParams) -> None:
    """Meta published LLaMA-1 in fp16 with epsilon 1e-6 and LLaMA-2 in bf16 with 1e-5."""
    kind = {FLOAT16: _LLAMA_1_EPS, BFLOAT16: _LLAMA_2_EPS}.get(weights["norm.weight"].dtype)
    if kind is not None and {kind, params.norm_eps} == {_LLAMA_1_EPS, _LLAMA_2_EPS}:
        warnings.warn(
            f"{params.source}: norm_eps is {params.norm_eps:g}, but the weights look like those of the LLaMA with "
            f"{kind:g}; check that params.json came with these weights",
            stacklevel=2,
        )


def read_meta_tensors(shards: tuple[Path, ...], folder: Path) -> dict[str, LazyTensor]:
    """Describe the weights in one or more shards.

    Returns:
        Tensors under Meta's names, without `rope.freqs` (recomputed) and without a stray adapter's keys.

    Raises:
        CheckpointError: if there are no shards, or they hold different or unknown keys.
    """
    if not shards:
        raise CheckpointError(f"{folder}: no consolidated.NN.pth; expected LLaMA's weights beside params.json")
    parts = [_llama_keys(read_torch_file(path), path) for path in shards]
    for path, part in zip(shards[1:], parts[1:], strict=True):
        if part.keys() != parts[0].keys():
            odd = sorted(part.keys() ^ parts[0].keys())[0]
            raise CheckpointError(f"{path}: {odd!r} isn't in every shard; expected shards of one model")
    return {name: _join(name, [part[name] for part in parts]) for name in parts[0]}


def _llama_keys(content: dict[str, Any], path: Path) -> dict[str, LazyTensor]:
    skipped = ("rope.freqs", "gate", "lora", "bias")
    tensors = {name: value for name, value in content.items() if not any(part in name for part in skipped)}
    unknown = [name for name, value in tensors.items() if parse_meta_name(name) is None or not hasattr(value, "shape")]
    if unknown:
        message = unknown_keys_message(path, unknown, ["layers.0.attention.wq.weight", "norm.weight"])
        raise CheckpointError(f"{message}; expected LLaMA's weights in Meta's layout")
    return tensors


def _join(name: str, pieces: list[LazyTensor]) -> LazyTensor:
    parsed = parse_meta_name(name)
    module = parsed.module if parsed else ""
    if module in _JOIN_FIRST:
        return concatenate(pieces, axis=0)
    if module in _JOIN_LAST:
        return concatenate(pieces, axis=-1)
    return pieces[0]


def llama_config_from_meta(tensors: Mapping[str, LazyTensor], params: MetaParams) -> LlamaConfig:
    """Read every size off the weights (Meta's names) and the rest off params.json.

    Raises:
        CheckpointError: if a needed weight is missing, or weights and params.json aren't of one model.
    """
    needed = (
        "tok_embeddings.weight", "layers.0.attention.wq.weight", "layers.0.attention.wk.weight",
        "layers.0.feed_forward.w1.weight", "norm.weight",
    )  # fmt: skip
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise CheckpointError(f"LLaMA weights lack {missing[0]!r}; expected a full LLaMA: pass its folder as llama")
    vocab_size, hidden_size = tensors[needed[0]].shape
    query_rows, key_rows = tensors[needed[1]].shape[0], tensors[needed[2]].shape[0]
    num_layers = count_layers(tensors)
    if query_rows % params.num_heads or key_rows % (query_rows // params.num_heads):
        raise CheckpointError(
            f"{params.source} says {params.num_heads} heads, but wq has {query_rows} rows and wk {key_rows}; "
            "expected the params.json that came with these weights"
        )
    head_dim = query_rows // params.num_heads
    sizes = {
        "dim": hidden_size, "n_layers": num_layers, "n_kv_heads": key_rows // head_dim, "vocab_size": vocab_size,
    }  # fmt: skip
    for name, said in params.sizes.items():
        if said != sizes[name]:
            raise CheckpointError(
                f"{params.source} says {name} {said}, but the weights have {sizes[name]}; "
                "expected the params.json that came with these weights"
            )
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=tensors[needed[3]].shape[0],
        num_hidden_layers=num_layers,
        num_attention_heads=params.num_heads,
        num_key_value_heads=key_rows // head_dim,
        head_dim=head_dim,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=params.norm_eps,
        rope_theta=params.rope_theta,
    )


def holds_meta_llama(path: Path) -> bool:
    """Whether a path is read in Meta's layout; a folder that has both descriptions is what its weights are."""
    if path.name == PARAMS_FILE:
        return True
    if not path.is_dir():
        return False
    has_config = (path / CONFIG_FILE).is_file()
    if (path / PARAMS_FILE).is_file():
        return any(path.glob(_WEIGHT_FILES)) or not has_config
    return not has_config and any(path.glob(f"*/{PARAMS_FILE}"))


def _recognise(folder: Path) -> Detection:
    """Describe which parts of a LLaMA in Meta's layout a folder has; the tokenizer may also be one folder above."""
    sizes = read_meta_params(folder / PARAMS_FILE).sizes
    num_shards = sum(path.is_file() for path in folder.glob(_WEIGHT_FILES))
    has_tokenizer = any((place / SENTENCEPIECE_FILE).is_file() for place in (folder, folder.parent))
    phrases = ["{n_layers} layers of width {dim}".format(**sizes)] if {"n_layers", "dim"} <= sizes.keys() else []
    if num_shards:
        phrases.append(counted(num_shards, "shard"))
        phrases += [] if has_tokenizer else [f"no {SENTENCEPIECE_FILE} beside or above"]
    else:
        phrases.append(f"no weights, only {PARAMS_FILE}" + (" and tokenizer" if has_tokenizer else ", no tokenizer"))
    return Detection(folder, KIND, ", ".join(phrases), present_parts(llama=num_shards > 0, tokenizer=has_tokenizer))


def _read(path: Path, weights: Mapping[str, LazyTensor] | None) -> LlamaSpec:
    return read_meta_llama(find_meta_folder(path), weights=weights)


FORMAT = Format(
    KIND,
    "a LLaMA in Meta's layout",
    role="llama",
    settings_file=PARAMS_FILE,
    recognise_folder=_recognise,
    settings_stand_for_folder=True,
    parent_stands_for_it=True,
    files=(_WEIGHT_FILES, SENTENCEPIECE_FILE),
    weight_prefixes=("tok_embeddings.", "layers."),
    weights="LLaMA weights in Meta's layout",
    read_llama=_read,
)
