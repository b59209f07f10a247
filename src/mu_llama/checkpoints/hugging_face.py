"""Read and write a Hugging Face LLaMA folder: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from mu_llama.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file, memory-mapped.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); get it again") from error


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        CheckpointError: if the file is missing or isn't one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read as JSON ({error}); get it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a JSON object")
    return content


def read_llama_folder(folder: Path) -> tuple[LlamaConfig, dict[str, Tensor]]:
    """Read config and weights.

    Returns:
        The config and tensors under transformers' names, in the dtype they are stored in.

    Raises:
        CheckpointError: if a file is missing or damaged, or the model isn't a LLaMA.
    """
    raw = read_json(folder / CONFIG_FILE)
    if raw.get("model_type") != "llama":
        raise CheckpointError(f"{folder}: model_type is {raw.get('model_type')!r}; expected 'llama'")
    return LlamaConfig.from_dict(raw), read_safetensors(folder / WEIGHTS_FILE)


def write_llama_folder(folder: Path, config: LlamaConfig, tensors: Mapping[str, Tensor], tokenizer_json: str) -> None:
    """Write config, weights and tokenizer into an existing folder."""
    config.architectures = ["LlamaForCausalLM"]
    save_file(dict(tensors), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
    # The config last: a folder without it is not a model.
    (folder / CONFIG_FILE).write_text(config.to_json_string(use_diff=False), encoding="utf-8")
