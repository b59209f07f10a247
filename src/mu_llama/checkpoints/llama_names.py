"""Meta's names and rotary layout of LLaMA weights, translated to Hugging Face's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from transformers import LlamaConfig

from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.errors import CheckpointError

_TOP = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_PATTERN = re.compile(r"layers\.(?P<layer>\d+)\.(?P<module>[a-z_]+(?:\.[a-z_0-9]+)?)$")


@dataclass(frozen=True)
class MetaName:
    """A parsed name such as `layers.3.attention.wq.weight`."""

    module: str
    """Module without its layer, e.g. `attention.wq` or `norm`."""
    layer: int | None
    """Layer index, or None outside the layers."""
    kind: str
    """`weight` or `bias`."""

    @property
    def hugging_face(self) -> str:
        """The name transformers gives this tensor."""
        if self.layer is None:
            return f"{_TOP[self.module]}.{self.kind}"
        return f"model.layers.{self.layer}.{_LAYER[self.module]}.{self.kind}"


def parse_meta_name(name: str) -> MetaName | None:
    """Take a Meta name apart; None if it is no LLaMA weight or bias."""
    path, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if path in _TOP:
        return MetaName(path, None, kind)
    match = _PATTERN.fullmatch(path)
    if match is None or match["module"] not in _LAYER:
        return None
    return MetaName(match["module"], int(match["layer"]), kind)


def meta_name(module: str, layer: int, kind: str = "weight") -> str:
    """Write a Meta name, e.g. `layers.3.attention.wq.weight`."""
    return f"layers.{layer}.{module}.{kind}"


def interleaved_to_halves(tensor: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of each head from rotary pairs (0,1),(2,3).. to halves, as transformers rotates.

    Args:
        tensor: (num_heads * head width, ...): a weight, the outer half of a LoRA, or a bias.
        num_heads: query heads for wq, key-value heads for wk.

    Returns:
        A tensor of the same shape.
    """
    rows = tensor.shape[0]
    pairs = tensor.reshape(num_heads, rows // num_heads // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


def halves_to_interleaved(tensor: Tensor, num_heads: int) -> Tensor:
    """Undo `interleaved_to_halves`, as files of llama.cpp want it."""
    rows = tensor.shape[0]
    halves = tensor.reshape(num_heads, 2, rows // num_heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def rotary_rows_reordered(value: LazyTensor, module: str, config: LlamaConfig, *, name: str) -> LazyTensor:
    """Reorder the rows of a query or key tensor as transformers wants them; others stay as they are.

    Args:
        value: (rows, ...).
        module: Meta's module name, e.g. `attention.wq`.
        config: of the LLaMA.
        name: for the error message.

    Raises:
        CheckpointError: if the number of rows isn't heads times head width.
    """
    heads = {"attention.wq": config.num_attention_heads, "attention.wk": config.num_key_value_heads}.get(module)
    return value if heads is None else rows_in_halves(value, heads, config, name=repr(name))


def rows_in_halves(value: LazyTensor, heads: int, config: LlamaConfig, *, name: str) -> LazyTensor:
    """Reorder the rows of a rotary tensor when it is read, from pairs to halves.

    Raises:
        CheckpointError: if the number of rows isn't heads times head width.
    """
    if value.shape[0] != heads * config.head_dim:
        raise CheckpointError(
            f"{name} has shape {value.shape}; expected {heads * config.head_dim} rows ({heads} heads of "
            f"{config.head_dim})"
        )
    return value.map(lambda tensor: interleaved_to_halves(tensor, heads))


def count_layers(names: Iterable[str]) -> int:
    """Count the layers whose numbers appear in the names.

    Raises:
        CheckpointError: if there are none or some are missing.
    """
    found = {int(match[1]) for name in names if (match := re.match(r"layers\.(\d+)\.", name))}
    if not found or found != set(range(len(found))):
        raise CheckpointError(f"layers {sorted(found)} came; expected all of 0..n: is a shard missing?")
    return len(found)


def unknown_keys_message(path: object, unknown: Iterable[str], known: Iterable[str]) -> str:
    """Say which keys weren't expected, each with its nearest known one."""
    known = list(known)
    parts = []
    unknown = sorted(unknown)
    for name in unknown[:5]:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        parts.append(f"{name!r}" + (f" (nearest known: {near[0]!r})" if near else ""))
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    return f"{path}: unexpected keys {', '.join(parts)}{more}"
