"""A checkpoint of the published system: recognised, and read with its LLaMA and its MERT as one model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu_llama.arrays import FLOAT32
from mu_llama.checkpoints.formats.format import UNKNOWN, Companions, Detection, Format, Part, present_parts, read_json
from mu_llama.checkpoints.formats.hugging_face import CONFIG_FILE
from mu_llama.checkpoints.formats.meta import PARAMS_FILE
from mu_llama.checkpoints.formats.tensor_files import read_torch_file
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.lora import LORA_DOWN, LORA_UP
from mu_llama.checkpoints.names import meta_name, parse_meta_name, rotary_rows_reordered, unknown_keys_message
from mu_llama.checkpoints.spec import EncoderSpec, ModelSpec
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.model.config import AdapterConfig, LlamaConfig
from mu_llama.text.prompts import ALPACA_PUBLISHED

KIND = "published checkpoint"
BASELINE_KIND = "ImageBind-LLM baseline"
_ENCODER = "mert"
_LICENCES = {
    "adapter": "MIT (as published)",
    "LLaMA": "Meta's community licence of the LLaMA in use",
    "MERT": "CC-BY-NC-4.0",
}
_BLOCK = re.compile(r"mu_mert_(norm|f1|f2|f3)_(\d+)\.(weight|bias)")
_ENDS = re.compile(r"mu_mert_(agg|proj)\.(weight|bias)|prefix_query\.weight")
_BLOCK_PARTS = {"norm": "norm", "f1": "gate", "f3": "up", "f2": "down"}
_LORA = re.compile(r"layers\.(\d+)\.(attention|feed_forward)\.lora_(w[qkvo123])_(l[12])\.weight")
_GATE = re.compile(r"layers\.(\d+)\.attention\.gate")
_BASE = "layers.0.attention.wq.weight"
PREFIXES = ("mu_mert_", "prefix_query.", "llama.", "mert_model.")
"""How every name in a checkpoint begins."""


@dataclass(frozen=True)
class PublishedTensors:
    """The parts of one or more published checkpoints, later files over earlier ones."""

    adapter: dict[str, LazyTensor]
    """`mu_mert_*` and `prefix_query.weight` under their published names."""
    gates: dict[int, LazyTensor]
    """Layer to (1, heads, 1, 1)."""
    llama: dict[str, LazyTensor]
    """LLaMA weights, norms and biases under Meta's names; the frozen base may be absent."""
    lora: dict[tuple[int, str], dict[str, LazyTensor]]
    """(layer, module) to {`l1`: (rank, in), `l2`: (out, rank)}."""
    encoder: dict[str, LazyTensor]
    """MERT, without the prefix `mert_model.`; may be empty."""

    @property
    def holds_llama(self) -> bool:
        """Whether the frozen base is in the checkpoint too."""
        return _BASE in self.llama


def read_published(paths: Sequence[Path]) -> PublishedTensors:
    """Read one checkpoint, or a base and the deltas that go on top of it.

    Raises:
        CheckpointError: for a damaged or unsafe file, or a key that is no part of MU-LLaMA.
    """
    merged = PublishedTensors({}, {}, {}, {}, {})
    for path in paths:
        _sort_into(merged, state_dict_of(read_torch_file(path), path), path)
    return merged


def state_dict_of(content: Mapping[str, Any], path: Path) -> dict[str, LazyTensor]:
    """Take the tensors out of a file, saved alone or under `model`, and undo the spellings of older files.

    Raises:
        CheckpointError: if there are none.
    """
    tensors = content.get("model", content)
    if not isinstance(tensors, dict) or not tensors:
        raise CheckpointError(f"{path}: its 'model' is no dictionary of tensors; expected a MU-LLaMA checkpoint")
    odd = [name for name, value in tensors.items() if not isinstance(value, LazyTensor)]
    if odd:
        raise CheckpointError(f"{path}: {odd[0]!r} is a {type(tensors[odd[0]]).__name__}; expected only tensors")
    return {_plain_name(str(name)): value for name, value in tensors.items()}


def _plain_name(name: str) -> str:
    """Undo `module.` in front and `llma.` for `llama.`."""
    name = name.removeprefix("module.")
    return "llama." + name.removeprefix("llma.") if name.startswith("llma.") else name


def _sort_into(parts: PublishedTensors, tensors: Mapping[str, LazyTensor], path: Path) -> None:
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
        known = [*tensors.keys() - set(unknown), "mu_mert_agg.weight", "mu_mert_proj.weight", "prefix_query.weight"]
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
        if len(tensors[name].shape) != num_axes:
            raise CheckpointError(f"{name!r} has shape {tensors[name].shape}; expected {num_axes} axes")
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


def adapter_tensors(parts: PublishedTensors, config: AdapterConfig, *, num_layers: int) -> dict[str, LazyTensor]:
    """Rename the adapter's, prefix's and gates' tensors to this package's names.

    Raises:
        CheckpointError: if a conditioned layer has no gate, or one of another size.
    """
    simple = {"mu_mert_agg": "adapter.layer_mix", "mu_mert_proj": "adapter.projection"}
    renamed = {"conditioner.prefix": parts.adapter["prefix_query.weight"]}
    for name, value in parts.adapter.items():
        module, _, kind = name.rpartition(".")
        if module in simple:
            renamed[f"{simple[module]}.{kind}"] = value
        elif match := _BLOCK.fullmatch(name):
            renamed[f"adapter.blocks.{int(match[2]) - 1}.{_BLOCK_PARTS[match[1]]}.{match[3]}"] = value
    renamed["conditioner.gate"] = _joined_gates(parts, config, num_layers=num_layers)
    return renamed


def _joined_gates(parts: PublishedTensors, config: AdapterConfig, *, num_layers: int) -> LazyTensor:
    conditioned = range(num_layers - config.num_conditioned_layers, num_layers)
    if conditioned.start < 0:
        raise CheckpointError(
            f"the adapter conditions {config.num_conditioned_layers} layers, this LLaMA has {num_layers}; "
            "expected the LLaMA it was made for"
        )
    missing = [layer for layer in conditioned if layer not in parts.gates]
    if missing:
        raise CheckpointError(
            f"the checkpoint has no gate for layer {missing[0]}; expected one in each of {conditioned}"
        )
    for layer in conditioned:
        if parts.gates[layer].num_elements != config.num_heads:
            raise CheckpointError(
                f"the gate of layer {layer} has shape {parts.gates[layer].shape}; "
                f"expected one number for each of the LLaMA's {config.num_heads} heads"
            )
    gates = [parts.gates[layer] for layer in conditioned]
    return LazyTensor(
        (len(gates), config.num_heads),
        FLOAT32,
        lambda: np.stack([gate.to(FLOAT32).read().reshape(-1) for gate in gates]),
    )


def tuning_tensors(parts: PublishedTensors, config: LlamaConfig) -> dict[str, LazyTensor]:
    """Give LoRA, biases and norms transformers' names and row order.

    Args:
        parts: from `read_published`.
        config: of the LLaMA, whose number of heads the row order depends on.

    Raises:
        CheckpointError: if a LoRA lacks a half or a rotary tensor's rows don't divide into heads.
    """
    tuning: dict[str, LazyTensor] = {}
    for name, value in parts.llama.items():
        parsed = parse_meta_name(name)
        assert parsed is not None, "sorted by name"
        tuning[parsed.hugging_face] = rotary_rows_reordered(value, parsed.module, config, name=name)
    for (layer, module), pair in parts.lora.items():
        name = meta_name(module, layer)
        parsed = parse_meta_name(name)
        assert parsed is not None, "matched by pattern"
        if pair.keys() != {"l1", "l2"}:
            raise CheckpointError(f"the LoRA of {name!r} has only {sorted(pair)}; expected l1 and l2")
        target = parsed.hugging_face.removesuffix(".weight")
        tuning[target + LORA_DOWN] = pair["l1"]
        tuning[target + LORA_UP] = rotary_rows_reordered(pair["l2"], module, config, name=f"LoRA of {name}")
    return tuning


def read_published_model(paths: Sequence[Path], companions: Companions) -> ModelSpec:
    """Describe a published model with its LLaMA and its MERT.

    Args:
        paths: one checkpoint, or a base and the deltas that go on top of it.
        companions: the LLaMA may be None if the checkpoint holds it and params.json with tokenizer.model lie
            beside it; the encoder may be None if the checkpoint holds it.

    Raises:
        ConfigError: if a part is missing.
        CheckpointError: if parts don't fit together.
    """
    path, llama = paths[0], companions.llama
    tensors = read_published(paths)
    if llama is None and tensors.holds_llama and (path.parent / PARAMS_FILE).is_file():
        llama = path.parent / PARAMS_FILE
    if llama is None:
        needed = (
            "params.json and tokenizer.model of the LLaMA inside" if tensors.holds_llama else "LLaMA it was made for"
        )
        raise ConfigError(f"{path}: needs the {needed}; add --llama FOLDER")
    weights = {name: value for name, value in tensors.llama.items() if not name.endswith(".bias")}
    base = companions.read_llama(llama, weights=weights if tensors.holds_llama else None)
    config = base.config
    sizes = adapter_config(tensors, num_heads=config.num_attention_heads)
    if sizes.hidden_size != config.hidden_size:
        raise CheckpointError(
            f"{path}: its adapter is {sizes.hidden_size} wide, {base.source} is {config.hidden_size}; "
            "expected the LLaMA it was made for"
        )
    tuning = tuning_tensors(tensors, config)
    if tensors.holds_llama:
        tuning = {name: value for name, value in tuning.items() if name not in base.tensors}
    return ModelSpec(
        name=path.stem,
        llama=base,
        tuning=tuning,
        adapter_config=sizes,
        adapter=adapter_tensors(tensors, sizes, num_layers=config.num_hidden_layers),
        template=ALPACA_PUBLISHED,
        encoder=_encoder_spec(path, tensors.encoder, companions),
        window="published",
        licences=_LICENCES,
        source=str(path),
        files=tuple(paths),
    )


def _encoder_spec(checkpoint: Path, tensors: Mapping[str, LazyTensor], companions: Companions) -> EncoderSpec:
    """A folder or hub id comes first; a folder with only a config.json describes the MERT in the checkpoint."""
    if companions.encoder is None:
        if tensors:
            return EncoderSpec({"kind": _ENCODER}, tensors)
        raise ConfigError(f"{checkpoint}: needs the MERT it was made with; add --encoder with a MERT folder or hub id")
    folder = Path(companions.encoder)
    has_config = tensors and (folder / CONFIG_FILE).is_file()
    if has_config and not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        return EncoderSpec({"kind": _ENCODER}, tensors, read_json(folder / CONFIG_FILE))
    return companions.read_encoder(companions.encoder)


def _recognise_baseline(path: Path, tensors: Mapping[str, LazyTensor], _is_torch: bool) -> Detection | None:
    is_baseline = any("image_bind" in name for name in tensors)
    return Detection(path, BASELINE_KIND, "not MU-LLaMA; plays no part") if is_baseline else None


def _recognise(path: Path, tensors: Mapping[str, LazyTensor], is_torch: bool) -> Detection | None:
    foreign = [name for name in tensors if not name.startswith(PREFIXES)]
    has_adapter = any(name.startswith("mu_mert_") for name in tensors)
    if foreign and not has_adapter:
        return None
    if not is_torch:
        return Detection(path, UNKNOWN, "keys of a MU-LLaMA checkpoint as safetensors; expected the .pth")
    holds = present_parts(
        adapter=has_adapter,
        llama="llama.layers.0.attention.wq.weight" in tensors,
        encoder=any(name.startswith("mert_model.") for name in tensors),
    )
    prefix = tensors.get("prefix_query.weight")
    ranks = sorted({value.shape[0] for name, value in tensors.items() if re.search(r"\.lora_\w+_l1\.weight$", name)})
    phrases = [] if has_adapter else ["a delta without the audio adapter"]
    if prefix is not None and len(prefix.shape) == 2:
        phrases.append("{} conditioned layers of width {}".format(*prefix.shape))
    inside: dict[Part, str] = {"llama": "LLaMA", "encoder": "MERT"}
    phrases += [f"{name} inside" for part, name in inside.items() if part in holds]
    phrases += [f"no {name} inside" for part, name in inside.items() if has_adapter and part not in holds]
    phrases += [f"LoRA rank {' and '.join(map(str, ranks))}"] if ranks else []
    phrases += [f"with keys that MU-LLaMA doesn't have, such as {foreign[0]!r}"] if foreign else []
    return Detection(path, KIND, ", ".join(phrases), holds)


def _read(path: Path, companions: Companions) -> ModelSpec:
    return read_published_model([path], companions)


FORMAT = Format(
    KIND,
    "a published MU-LLaMA checkpoint",
    role="model",
    needs=frozenset({"adapter"}),
    recognise_tensors=_recognise,
    read_model=_read,
)
BASELINE_FORMAT = Format(BASELINE_KIND, "the ImageBind-LLM baseline", recognise_tensors=_recognise_baseline)
