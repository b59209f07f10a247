"""Read checkpoints of the published system and put them together with a LLaMA."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig

from mu_llama.checkpoints.llama_names import (
    LINEARS,
    ROTARY_MODULES,
    interleaved_to_halves,
    meta_name,
    parse_meta_name,
    unknown_keys_message,
)
from mu_llama.checkpoints.meta_llama import MetaParams, llama_config_from_meta
from mu_llama.checkpoints.placing import place_tensors
from mu_llama.checkpoints.torch_files import read_torch_file
from mu_llama.errors import CheckpointError
from mu_llama.model.config import AdapterConfig
from mu_llama.model.mu_llama import MuLlama, build_mu_llama

_BLOCK = re.compile(r"mu_mert_(norm|f1|f2|f3)_(\d+)\.(weight|bias)")
_ENDS = re.compile(r"mu_mert_(agg|proj)\.(weight|bias)|prefix_query\.weight")
_BLOCK_PARTS = {"norm": "norm", "f1": "gate", "f3": "up", "f2": "down"}
_LORA = re.compile(r"layers\.(\d+)\.(attention|feed_forward)\.lora_(w[qkvo123])_(l[12])\.weight")
_GATE = re.compile(r"layers\.(\d+)\.attention\.gate")


@dataclass(frozen=True)
class PublishedTensors:
    """The parts of one or more published checkpoints, later files over earlier ones."""

    adapter: dict[str, Tensor]
    """`mu_mert_*` and `prefix_query.weight` under their published names."""
    gates: dict[int, Tensor]
    """Layer to (1, heads, 1, 1)."""
    llama: dict[str, Tensor]
    """LLaMA weights, norms and biases under Meta's names; the frozen base may be absent."""
    lora: dict[tuple[int, str], dict[str, Tensor]]
    """(layer, module) to {`l1`: (rank, in), `l2`: (out, rank)}."""
    encoder: dict[str, Tensor]
    """MERT, without the prefix `mert_model.`; may be empty."""


def read_published(paths: Sequence[Path]) -> PublishedTensors:
    """Read one checkpoint, or a base and the deltas that go on top of it.

    Raises:
        CheckpointError: for a damaged or unsafe file, or a key that is no part of MU-LLaMA.
    """
    merged = PublishedTensors({}, {}, {}, {}, {})
    for path in paths:
        content = read_torch_file(path)
        tensors = content.get("model", content)
        if not isinstance(tensors, dict) or not tensors:
            raise CheckpointError(f"{path}: its 'model' is no dictionary of tensors; expected a MU-LLaMA checkpoint")
        _sort_into(merged, {_plain_name(str(name)): value for name, value in tensors.items()}, path)
    return merged


def _plain_name(name: str) -> str:
    """Undo the spellings of older files: `module.` in front and `llma.` for `llama.`."""
    name = name.removeprefix("module.")
    return "llama." + name.removeprefix("llma.") if name.startswith("llma.") else name


def _sort_into(parts: PublishedTensors, tensors: Mapping[str, Tensor], path: Path) -> None:
    unknown = []
    for name, value in tensors.items():
        inner = name.removeprefix("llama.")
        if name.startswith("mert_model."):
            parts.encoder[name.removeprefix("mert_model.")] = value
        elif _ENDS.fullmatch(name) or _BLOCK.fullmatch(name):
            parts.adapter[name] = value
        elif inner == name:
            unknown.append(name)
        elif match := _GATE.fullmatch(inner):
            parts.gates[int(match[1])] = value
        elif match := _LORA.fullmatch(inner):
            parts.lora.setdefault((int(match[1]), f"{match[2]}.{match[3]}"), {})[match[4]] = value
        elif parse_meta_name(inner) is not None:
            parts.llama[inner] = value
        elif inner != "rope.freqs":
            unknown.append(name)
    if unknown:
        known = ["mu_mert_agg.weight", "mu_mert_proj.weight", "prefix_query.weight", "llama.norm.weight"]
        raise CheckpointError(unknown_keys_message(path, unknown, known) + "; expected a MU-LLaMA checkpoint")


def adapter_config(parts: PublishedTensors, *, num_heads: int) -> AdapterConfig:
    """Read the adapter's sizes off its weights.

    Raises:
        CheckpointError: if a part of the adapter is missing.
    """
    tensors = parts.adapter
    needed = ("mu_mert_agg.weight", "mu_mert_proj.weight", "mu_mert_f1_1.weight", "prefix_query.weight")
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise CheckpointError(
            f"the checkpoint has no {missing[0]!r}; expected the audio adapter: give the checkpoint that holds it first"
        )
    for name, num_axes in zip(needed, (3, 2, 2, 2), strict=True):
        if tensors[name].ndim != num_axes:
            raise CheckpointError(f"{name!r} has shape {tuple(tensors[name].shape)}; expected {num_axes} axes")
    hidden_size, encoder_width = tensors["mu_mert_proj.weight"].shape
    return AdapterConfig(
        num_encoder_layers=tensors["mu_mert_agg.weight"].shape[1],
        encoder_width=encoder_width,
        hidden_size=hidden_size,
        num_conditioned_layers=tensors["prefix_query.weight"].shape[0],
        num_heads=num_heads,
        bridge_width=tensors["mu_mert_f1_1.weight"].shape[0],
        num_blocks=sum(name.startswith("mu_mert_norm_") and name.endswith(".weight") for name in tensors),
        legacy_bridge="mu_mert_norm_1.bias" in tensors,
    )


def adapter_tensors(parts: PublishedTensors, config: AdapterConfig, *, num_layers: int) -> dict[str, Tensor]:
    """Rename the adapter's, prefix's and gates' tensors to this package's names.

    Raises:
        CheckpointError: if a conditioned layer has no gate.
    """
    simple = {"mu_mert_agg": "adapter.layer_mix", "mu_mert_proj": "adapter.projection"}
    renamed = {"conditioner.prefix": parts.adapter["prefix_query.weight"]}
    for name, value in parts.adapter.items():
        module, _, kind = name.rpartition(".")
        if module in simple:
            renamed[f"{simple[module]}.{kind}"] = value
        elif match := _BLOCK.fullmatch(name):
            renamed[f"adapter.blocks.{int(match[2]) - 1}.{_BLOCK_PARTS[match[1]]}.{match[3]}"] = value
    conditioned = range(num_layers - config.num_conditioned_layers, num_layers)
    missing = [layer for layer in conditioned if layer not in parts.gates]
    if missing:
        raise CheckpointError(
            f"the checkpoint has no gate for layer {missing[0]}; expected one in each of {conditioned}"
        )
    for layer in conditioned:
        if parts.gates[layer].numel() != config.num_heads:
            raise CheckpointError(
                f"the gate of layer {layer} has shape {tuple(parts.gates[layer].shape)}; "
                f"expected one number for each of the LLaMA's {config.num_heads} heads"
            )
    renamed["conditioner.gate"] = torch.stack([parts.gates[layer].reshape(-1) for layer in conditioned])
    return renamed


def assemble_published(
    parts: PublishedTensors, base: Mapping[str, Tensor], params: MetaParams, *, dtype: torch.dtype
) -> MuLlama:
    """Build the model: LoRA merged (scale 1), biases kept, rotary rows reordered.

    Args:
        parts: from `read_published`.
        base: LLaMA weights under Meta's names; the checkpoint's own ones go on top.
        params: from params.json.
        dtype: of the LLaMA; the adapter stays in float32.

    Raises:
        CheckpointError: if keys are missing or shapes don't fit together.
    """
    tensors = {**base, **parts.llama}
    biased = any(name.endswith(".bias") for name in tensors)
    config = llama_config_from_meta(tensors, params, biased=biased)
    sizes = adapter_config(parts, num_heads=params.num_heads)
    if sizes.hidden_size != config.hidden_size:
        raise CheckpointError(
            f"the adapter is {sizes.hidden_size} wide, this LLaMA {config.hidden_size}; "
            "expected the LLaMA it was made for"
        )
    _check_llama(tensors, parts, config)
    model = build_mu_llama(config, sizes, dtype=dtype)
    num_layers = config.num_hidden_layers
    conditioned = range(num_layers - sizes.num_conditioned_layers, num_layers)
    if parts.lora:
        values = [tensors[meta_name("attention.wv", layer)].to(dtype) for layer in conditioned]
        model.keep_value_weights(values)
    placed = {f"llama.{name}": value for name, value in _hugging_face_llama(tensors, parts, config, dtype).items()}
    for name, value in adapter_tensors(parts, sizes, num_layers=num_layers).items():
        placed[name] = value.float()
    place_tensors(model, placed, source="checkpoint")
    return model


def _check_llama(tensors: Mapping[str, Tensor], parts: PublishedTensors, config: LlamaConfig) -> None:
    """Refuse rotary weights whose rows don't divide into heads, and a LoRA that is not whole or fits no weight."""
    heads = {"attention.wq": config.num_attention_heads, "attention.wk": config.num_key_value_heads}
    for name, value in tensors.items():
        parsed = parse_meta_name(name)
        if parsed is not None and parsed.module in heads:
            rows = heads[parsed.module] * config.head_dim
            if value.shape[0] != rows:
                raise CheckpointError(f"{name!r} has shape {tuple(value.shape)}; expected {rows} rows")
    for (layer, module), pair in parts.lora.items():
        name = meta_name(module, layer)
        if name not in tensors:
            raise CheckpointError(f"there is a LoRA for {name!r}, which this LLaMA hasn't; expected its own LLaMA")
        if pair.keys() != {"l1", "l2"}:
            raise CheckpointError(f"the LoRA of {name!r} has only {sorted(pair)}; expected l1 and l2")
        down, up, weight = pair["l1"], pair["l2"], tensors[name]
        if (up.shape[0], down.shape[-1]) != tuple(weight.shape) or up.shape[-1] != down.shape[0]:
            raise CheckpointError(
                f"the LoRA of {name!r} is {tuple(up.shape)} x {tuple(down.shape)}; "
                f"expected it to fit {tuple(weight.shape)}"
            )


def _hugging_face_llama(
    tensors: Mapping[str, Tensor], parts: PublishedTensors, config: LlamaConfig, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Merge LoRA, reorder rotary rows, add zero biases where the published layers have none, and rename."""
    heads = {"attention.wq": config.num_attention_heads, "attention.wk": config.num_key_value_heads}
    out: dict[str, Tensor] = {}
    for name, value in tensors.items():
        parsed = parse_meta_name(name)
        if parsed is None:
            raise CheckpointError(unknown_keys_message("LLaMA", [name], tensors))
        if parsed.kind == "weight" and parsed.layer is not None:
            low_rank = parts.lora.get((parsed.layer, parsed.module))
            if low_rank is not None:
                value = value.float() + low_rank["l2"].float() @ low_rank["l1"].float()
        if parsed.module in ROTARY_MODULES:
            value = interleaved_to_halves(value, heads[parsed.module])
        out[parsed.hugging_face] = value.to(dtype)
    if config.attention_bias:
        for layer in range(config.num_hidden_layers):
            for module in LINEARS:
                bias = parse_meta_name(meta_name(module, layer, "bias"))
                rows = tensors[meta_name(module, layer)].shape[0]
                if bias is not None and bias.hugging_face not in out:
                    out[bias.hugging_face] = torch.zeros(rows, dtype=dtype)
    return out
