"""Read Meta's LLaMA folder: params.json, consolidated.NN.pth in one or more shards, tokenizer.model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig

from mu_llama.checkpoints.llama_names import count_layers, parse_meta_name, unknown_keys_message
from mu_llama.checkpoints.torch_files import read_torch_file
from mu_llama.errors import CheckpointError

# Where the shards of each module are glued together; norms are copies in every shard.
_JOIN_FIRST = ("attention.wq", "attention.wk", "attention.wv", "feed_forward.w1", "feed_forward.w3", "output")
_JOIN_LAST = ("attention.wo", "feed_forward.w2", "tok_embeddings")
# compat: the published system always makes room for so many positions, whatever the LLaMA was trained with.
MAX_POSITIONS = 8192


@dataclass(frozen=True)
class MetaParams:
    """What params.json says and the weights can't."""

    num_heads: int
    """Attention heads."""
    norm_eps: float
    """Epsilon of every RMSNorm."""
    rope_theta: float = 10000.0
    """Base of the rotary angles."""


@dataclass(frozen=True)
class MetaFolder:
    """Where the parts of a Meta LLaMA folder are."""

    params: Path
    """params.json."""
    shards: tuple[Path, ...]
    """consolidated.NN.pth in order; empty if the folder holds none."""
    tokenizer: Path
    """tokenizer.model."""


def find_meta_folder(root: Path, *, llama_type: str | None = None) -> MetaFolder:
    """Find the parts, in `<root>/<type>/` with the tokenizer in `<root>`, or all in one flat folder.

    Raises:
        CheckpointError: if params.json or tokenizer.model is nowhere, or several types are there.
    """
    candidates = sorted(root.glob("*/params.json")) if llama_type is None else [root / llama_type / "params.json"]
    if llama_type is None and (root / "params.json").is_file():
        candidates = [root / "params.json"]
    candidates = [path for path in candidates if path.is_file()]
    if len(candidates) != 1:
        came = ", ".join(path.parent.name for path in candidates) or "no params.json"
        raise CheckpointError(
            f"{root}: found {came}; expected one LLaMA (params.json and consolidated.NN.pth, in the folder or one "
            "folder below): pass that folder"
        )
    folder = candidates[0].parent
    for tokenizer in (
        root / "tokenizer.model",
        folder / "tokenizer.model",
        folder.parent / "tokenizer.model",
    ):
        if tokenizer.is_file():
            return MetaFolder(candidates[0], tuple(sorted(folder.glob("*.pth"))), tokenizer)
    raise CheckpointError(
        f"{root}: no tokenizer.model; expected LLaMA's tokenizer in {root} or {folder}: copy it there"
    )


def read_meta_params(path: Path) -> MetaParams:
    """Read params.json; keys that a newer LLaMA adds and that change nothing are passed over.

    Raises:
        CheckpointError: if it isn't JSON or lacks what is needed.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("use_scaled_rope"):
            raise CheckpointError(f"{path}: use_scaled_rope is set; scaled rotary angles (LLaMA 3.1) aren't supported")
        params = MetaParams(
            num_heads=int(raw["n_heads"]),
            norm_eps=float(raw["norm_eps"]),
            rope_theta=float(raw.get("rope_theta", 10000.0)),
        )
        if params.num_heads < 1 or not 0 < params.norm_eps < 1 or not params.rope_theta > 0:
            raise ValueError(f"{params} is out of range")
        return params
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not LLaMA's params.json ({error}); expected n_heads and norm_eps") from error


def read_meta_tensors(shards: tuple[Path, ...]) -> dict[str, Tensor]:
    """Read and join the shards.

    Returns:
        Tensors under Meta's names, without `rope.freqs` (recomputed) and without a stray adapter's keys.

    Raises:
        CheckpointError: if there are no shards, or they hold different or unknown keys.
    """
    if not shards:
        raise CheckpointError("no consolidated.NN.pth; expected LLaMA's weights beside params.json")
    parts = [_llama_keys(read_torch_file(path), path) for path in shards]
    for path, part in zip(shards[1:], parts[1:], strict=True):
        if part.keys() != parts[0].keys():
            odd = sorted(part.keys() ^ parts[0].keys())[0]
            raise CheckpointError(f"{path}: {odd!r} isn't in every shard; expected shards of one model")
    return {name: _join(name, [part[name] for part in parts]) for name in parts[0]}


def _llama_keys(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    skipped = ("rope.freqs", "gate", "lora", "bias")
    kept = {name: value for name, value in content.items() if not any(part in name for part in skipped)}
    unknown = [name for name in kept if parse_meta_name(name) is None]
    if unknown:
        raise CheckpointError(unknown_keys_message(path, unknown, ["layers.0.attention.wq.weight", "norm.weight"]))
    return kept


def _join(name: str, pieces: list[Tensor]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0]
    parsed = parse_meta_name(name)
    module = parsed.module if parsed else ""
    if module in _JOIN_FIRST:
        return torch.cat(pieces, dim=0)
    if module in _JOIN_LAST:
        return torch.cat(pieces, dim=-1)
    return pieces[0]


def llama_config_from_meta(tensors: dict[str, Tensor], params: MetaParams, *, biased: bool) -> LlamaConfig:
    """Read every size off the weights (Meta's names) and the rest off params.json.

    Raises:
        CheckpointError: if a needed weight is missing or the number of heads doesn't divide its shape.
    """
    needed = (
        "tok_embeddings.weight", "layers.0.attention.wq.weight", "layers.0.attention.wk.weight",
        "layers.0.feed_forward.w1.weight",
    )  # fmt: skip
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise CheckpointError(f"LLaMA weights lack {missing[0]!r}; expected a full LLaMA: pass its folder as llama")
    vocab_size, hidden_size = tensors[needed[0]].shape
    query_rows, key_rows = tensors[needed[1]].shape[0], tensors[needed[2]].shape[0]
    if query_rows % params.num_heads or key_rows % (query_rows // params.num_heads):
        raise CheckpointError(
            f"params.json says {params.num_heads} heads, but wq has {query_rows} rows and wk {key_rows}; "
            "expected the params.json that came with these weights"
        )
    head_dim = query_rows // params.num_heads
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=tensors[needed[3]].shape[0],
        num_hidden_layers=count_layers(tensors),
        num_attention_heads=params.num_heads,
        num_key_value_heads=key_rows // head_dim,
        head_dim=head_dim,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=params.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": params.rope_theta},
        attention_bias=biased,
        mlp_bias=biased,
        tie_word_embeddings=False,
        pad_token_id=None,
    )
