"""Our model folder: config.json, adapter.safetensors, and lora.safetensors where the LLaMA is tuned."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from mu_llama.checkpoints.hugging_face import CONFIG_FILE, read_json, read_safetensors
from mu_llama.checkpoints.llama_names import unknown_keys_message
from mu_llama.checkpoints.placing import place_tensors
from mu_llama.errors import CheckpointError
from mu_llama.model.config import AdapterConfig
from mu_llama.model.mu_llama import MuLlama, build_mu_llama

FORMAT = "mu-llama/1"
ADAPTER_FILE = "adapter.safetensors"
LORA_FILE = "lora.safetensors"
_LORA_DOWN, _LORA_UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class ModelConfig:
    """config.json of a model folder."""

    name: str
    """What an answer says it was written by."""
    prompt: str
    """Name of the prompt template."""
    adapter: AdapterConfig
    """Sizes of the adapter."""
    encoder: dict[str, Any]
    """What `encoders.build_encoder` takes: `kind` and its settings."""
    llama: dict[str, str]
    """`{"packaged": name}` of an embedded LLaMA, or `{"folder": path}` of a Hugging Face folder."""
    licences: dict[str, str] = field(default_factory=dict)
    """Part of the model to its licence."""
    format: str = FORMAT
    """Version of this layout."""


def read_model_config(folder: Path) -> ModelConfig:
    """Read and check config.json.

    Raises:
        CheckpointError: if it is missing, of another format, or has unknown or missing fields.
    """
    path = folder / CONFIG_FILE
    raw = read_json(path)
    if raw.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format is {raw.get('format')!r}; expected {FORMAT!r}, a mu-llama model folder")
    try:
        sizes = AdapterConfig(**raw.pop("adapter"))  # type: ignore[arg-type]
        return ModelConfig(adapter=sizes, **raw)  # type: ignore[arg-type]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: {error}; expected the fields of a mu-llama model") from error


def write_model_folder(
    folder: Path, config: ModelConfig, *, adapter: Mapping[str, Tensor], lora: Mapping[str, Tensor] | None
) -> None:
    """Write a model folder; the config comes last, so that a half-written folder is no model.

    Args:
        folder: made if it isn't there.
        config: sizes and names.
        adapter: tensors under the names `adapter.*` and `conditioner.*`.
        lora: `<module>.lora_A.weight` (rank, in) and `<module>.lora_B.weight` (out, rank), scale 1, or None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    save_file({name: value.contiguous() for name, value in adapter.items()}, folder / ADAPTER_FILE)
    if lora is not None:
        save_file({name: value.contiguous() for name, value in lora.items()}, folder / LORA_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n", encoding="utf-8")


def assemble_native(
    folder: Path, config: ModelConfig, llama: tuple[LlamaConfig, Mapping[str, Tensor]], *, dtype: torch.dtype
) -> MuLlama:
    """Build the model from its folder and its LLaMA, LoRA merged.

    Args:
        folder: holds the adapter and, maybe, the LoRA.
        config: from `read_model_config`.
        llama: config and tensors under transformers' names.
        dtype: of the LLaMA; the adapter runs in float32.

    Raises:
        CheckpointError: if keys or shapes don't fit.
    """
    llama_config, base = llama
    sizes = config.adapter
    wanted = (sizes.hidden_size, sizes.num_heads)
    came = (llama_config.hidden_size, llama_config.num_attention_heads)
    if wanted != came or sizes.num_conditioned_layers > llama_config.num_hidden_layers:
        raise CheckpointError(
            f"{folder}: its adapter is for a LLaMA with width and heads {wanted} and at least "
            f"{sizes.num_conditioned_layers} layers; this one has {came} and {llama_config.num_hidden_layers}"
        )
    model = build_mu_llama(llama_config, config.adapter, dtype=dtype)
    merged = {name: value.to(dtype) for name, value in base.items()}
    lora_path = folder / LORA_FILE
    if lora_path.is_file():
        first = llama_config.num_hidden_layers - config.adapter.num_conditioned_layers
        layers = range(first, llama_config.num_hidden_layers)
        model.keep_value_weights([merged[f"model.layers.{layer}.self_attn.v_proj.weight"] for layer in layers])
        merge_lora(merged, base, read_safetensors(lora_path), source=lora_path)
    placed = {f"llama.{name}": value for name, value in merged.items()}
    placed |= {name: value.float() for name, value in read_safetensors(folder / ADAPTER_FILE).items()}
    place_tensors(model, placed, source=folder)
    return model


def merge_lora(
    merged: dict[str, Tensor], base: Mapping[str, Tensor], lora: Mapping[str, Tensor], *, source: object
) -> None:
    """Replace each tuned weight in `merged` by `W + B A`.

    Computed in bf16 (with float32 sums, as in training) where that is the result's dtype, else in float32.

    Raises:
        CheckpointError: if a LoRA names a weight that isn't there or has another shape.
    """
    for name, down in lora.items():
        if not name.endswith(_LORA_DOWN):
            if not name.endswith(_LORA_UP):
                raise CheckpointError(unknown_keys_message(source, [name], lora))
            continue
        module = name.removesuffix(_LORA_DOWN)
        weight, up = base.get(f"{module}.weight"), lora.get(module + _LORA_UP)
        if weight is None or up is None:
            raise CheckpointError(unknown_keys_message(source, [name], [f"{key}" for key in base]))
        if weight.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
            raise CheckpointError(
                f"{source}: LoRA of {module!r} is {tuple(up.shape)} x {tuple(down.shape)}; "
                f"expected it to fit the weight's {tuple(weight.shape)}"
            )
        out = merged[f"{module}.weight"]
        dtype = torch.bfloat16 if out.dtype == torch.bfloat16 else torch.float32
        merged[f"{module}.weight"] = torch.addmm(weight.to(dtype), up.to(dtype), down.to(dtype)).to(out.dtype)
