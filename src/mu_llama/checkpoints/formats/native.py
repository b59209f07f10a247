"""Our model folder: config.json, adapter.safetensors, and lora.safetensors where the LLaMA is tuned."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu_llama.audio.windows import PLANS
from mu_llama.checkpoints.formats.format import Companions, Detection, Format, read_json
from mu_llama.checkpoints.formats.hugging_face import CONFIG_FILE
from mu_llama.checkpoints.formats.onnx_graph import graph_precision, read_graph_llama
from mu_llama.checkpoints.formats.tensor_files import read_safetensors, write_safetensors
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.spec import EncoderSpec, LlamaSpec, ModelSpec
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.model.config import AdapterConfig
from mu_llama.text.prompts import template_by_name

KIND = "mu-llama folder"
LAYOUT = "mu-llama/1"
_LAYOUT_FAMILY = "mu-llama/"
ADAPTER_FILE = "adapter.safetensors"
TUNING_FILE = "lora.safetensors"


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
    """What `encoders.build_encoder` takes: `kind` and its settings; `path` is a folder in this one, or a hub id."""
    llama: dict[str, str]
    """`{"packaged": name}` of an embedded LLaMA, or `{"folder": path}` of a LLaMA folder beside this file. With
    `"graph": path` the weights are those of an onnx graph, and the folder has only sizes and tokenizer."""
    licences: dict[str, str] = field(default_factory=dict)
    """Part of the model to its licence."""
    window: str = "full"
    """Name of the plan that says which seconds of a track are encoded."""
    format: str = LAYOUT
    """Version of this layout."""

    def __post_init__(self) -> None:
        bad = [f"{name}={value!r}" for name, value in vars(self).items() if not isinstance(value, _TYPES[name])]
        if bad:
            raise ConfigError(f"fields of another type: {', '.join(bad)}")
        if len(self.llama.keys() & {"packaged", "folder"}) != 1:
            raise ConfigError(f"llama is {self.llama}; expected one of 'packaged' and 'folder'")
        if "graph" in self.llama and "folder" not in self.llama:
            raise ConfigError(f"llama is {self.llama}; expected a 'folder' with sizes and tokenizer beside 'graph'")
        template_by_name(self.prompt)


_TYPES: dict[str, type] = {
    "name": str, "prompt": str, "adapter": AdapterConfig, "encoder": dict, "llama": dict, "licences": dict,
    "window": str, "format": str,
}  # fmt: skip


def read_model_config(folder: Path) -> ModelConfig:
    """Read and check config.json.

    Raises:
        CheckpointError: if it is missing, of another format, or has unknown, missing or wrong fields.
    """
    path = folder / CONFIG_FILE
    raw = read_json(path)
    if raw.get("format") != LAYOUT:
        raise CheckpointError(f"{path}: format is {raw.get('format')!r}; expected {LAYOUT!r}, a mu-llama model folder")
    try:
        sizes = AdapterConfig(**raw.pop("adapter"))
        return ModelConfig(adapter=sizes, **raw)
    except (TypeError, KeyError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}; expected the fields of a mu-llama model") from error


def native_parts(folder: Path, config: ModelConfig, llama: LlamaSpec) -> ModelSpec:
    """Describe the model of a folder.

    Args:
        folder: holds the adapter and, maybe, the tuning.
        config: from `read_model_config`.
        llama: what `config.llama` names.

    Raises:
        CheckpointError: if files are damaged or the LLaMA is one of other sizes.
    """
    sizes = config.adapter
    wanted = (sizes.hidden_size, sizes.num_heads)
    came = (llama.config.hidden_size, llama.config.num_attention_heads)
    if wanted != came or sizes.num_conditioned_layers > llama.config.num_hidden_layers:
        raise CheckpointError(
            f"{folder}: its adapter is for a LLaMA with width and heads {wanted} and at least "
            f"{sizes.num_conditioned_layers} layers; {llama.source} has {came} and {llama.config.num_hidden_layers}"
        )
    encoder = dict(config.encoder)
    inside = folder / str(encoder.get("path", ""))
    if "path" in encoder and inside.is_dir():
        encoder["path"] = str(inside)
    tuning_path = folder / TUNING_FILE
    return ModelSpec(
        name=config.name,
        llama=llama,
        tuning=read_safetensors(tuning_path) if tuning_path.is_file() else {},
        adapter_config=sizes,
        adapter=read_safetensors(folder / ADAPTER_FILE),
        template=template_by_name(config.prompt),
        encoder=EncoderSpec(encoder),
        window=config.window,
        licences=config.licences,
        source=str(folder),
        files=(folder / CONFIG_FILE, folder / ADAPTER_FILE, *([tuning_path] if tuning_path.is_file() else ())),
    )


def write_model_files(
    folder: Path,
    config: ModelConfig,
    *,
    adapter: Mapping[str, LazyTensor],
    tuning: Mapping[str, LazyTensor],
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the files of a model folder; the config comes last, so that a half-written folder is no model.

    Args:
        folder: made if it isn't there.
        config: sizes and names.
        adapter: tensors under the names `adapter.*` and `conditioner.*`.
        tuning: as `ModelSpec.tuning`; no file is written if it is empty.
        advance: called with the number of bytes of each tensor as it is written.

    Raises:
        OSError: if the disk is full or the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    write_safetensors(folder / ADAPTER_FILE, adapter, advance=advance)
    (folder / TUNING_FILE).unlink(missing_ok=True)
    if tuning:
        write_safetensors(folder / TUNING_FILE, tuning, advance=advance)
    (folder / CONFIG_FILE).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n", encoding="utf-8")


def _recognise(folder: Path) -> Detection | None:
    raw = read_json(folder / CONFIG_FILE)
    layout = raw.get("format")
    if not isinstance(layout, str) or not layout.startswith(_LAYOUT_FAMILY):
        return None
    note, llama = f"named {raw.get('name')!r}, format {layout}", raw.get("llama")
    if isinstance(llama, dict) and "graph" in llama:
        note += ", LLaMA as an onnx graph"
        with suppress(CheckpointError):  # damaged, which its reader explains
            note += f" in {graph_precision(folder / str(llama['graph']))}"
    return Detection(folder, KIND, note)


def _read(folder: Path, companions: Companions) -> ModelSpec:
    config = read_model_config(folder)
    if config.window not in PLANS:
        raise CheckpointError(f"{folder}: window is {config.window!r}; expected {' or '.join(PLANS)}")
    if "graph" in config.llama:
        llama = read_graph_llama(folder / config.llama["folder"], folder / config.llama["graph"])
        return native_parts(folder, config, llama)
    if "folder" in config.llama:
        return native_parts(folder, config, companions.read_llama(folder / config.llama["folder"]))
    packaged = companions.packaged_llama(config.llama["packaged"])
    if packaged is None:
        raise CheckpointError(f"{folder}: embedded LLaMA {config.llama['packaged']!r} is unknown; update mu-llama")
    return native_parts(folder, config, companions.read_llama(packaged))


FORMAT = Format(
    KIND,
    "a mu-llama model folder",
    role="model",
    settings_file=CONFIG_FILE,
    recognise_folder=_recognise,
    weight_prefixes=("adapter.", "conditioner."),
    weights="adapter weights of a mu-llama folder",
    is_closed=True,
    read_model=_read,
)
