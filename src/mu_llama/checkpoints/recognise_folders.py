"""Tell what a folder of weights is, by the settings files directly in it."""

from __future__ import annotations

from pathlib import Path

from mu_llama.checkpoints.found import Detection, Part, unreadable
from mu_llama.checkpoints.hugging_face import CONFIG_FILE
from mu_llama.checkpoints.json_files import read_json
from mu_llama.checkpoints.meta_llama import PARAMS_FILE, read_meta_params
from mu_llama.checkpoints.spec import FAST_TOKENIZER_FILE, SENTENCEPIECE_FILE

PEFT_FILE = "adapter_config.json"
SETTINGS_FILES = (CONFIG_FILE, PEFT_FILE, PARAMS_FILE)
_OWN_FORMAT = "mu-llama/"
_MERT_TYPES = ("mert_model", "hubert")
_META_WEIGHTS = "consolidated*.pth"
_HUB_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def recognise_folder(folder: Path) -> Detection | None:
    """Tell what a folder is, by config.json, adapter_config.json or params.json directly in it.

    Returns:
        None for a folder that has none of these, or one that isn't a model's.
    """
    unknown = None
    for name, recognise in zip(SETTINGS_FILES, (_by_config, _by_peft_config, recognise_meta), strict=True):
        try:
            found = recognise(folder) if (folder / name).is_file() else None
        except Exception as error:  # one bad file must not hide the others
            found = unreadable(folder, error, source=folder / name)
        if found is not None and found.kind != "unknown":
            return found
        unknown = unknown or found
    return unknown


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; one behind a locked door isn't."""
    try:
        return path.is_dir()
    except OSError:
        return False


def belongs_to(owner: Detection, path: Path) -> bool:
    """Whether a file is one of those that make up the folder it is in, and so is no find of its own."""
    if path.name in SETTINGS_FILES:
        return True
    if owner.kind == "Meta LLaMA":
        return path.match(_META_WEIGHTS) or path.name == SENTENCEPIECE_FILE
    if owner.kind in ("Hugging Face LLaMA", "MERT"):
        return any(path.match(pattern) for pattern in (*_HUB_WEIGHTS, "tokenizer*"))
    return False


def recognise_meta(folder: Path) -> Detection:
    """Tell what is there of a LLaMA in Meta's layout; the tokenizer may also be one folder above.

    Raises:
        CheckpointError: if params.json isn't LLaMA's.
    """
    sizes = read_meta_params(folder / PARAMS_FILE).sizes
    num_shards = sum(path.is_file() for path in folder.glob(_META_WEIGHTS))
    has_tokenizer = any((place / SENTENCEPIECE_FILE).is_file() for place in (folder, folder.parent))
    phrases = ["{n_layers} layers of width {dim}".format(**sizes)] if {"n_layers", "dim"} <= sizes.keys() else []
    if num_shards:
        phrases.append(_count(num_shards, "shard"))
        phrases += [] if has_tokenizer else [f"no {SENTENCEPIECE_FILE} beside or above"]
    else:
        phrases.append(f"no weights, only {PARAMS_FILE}" + (" and tokenizer" if has_tokenizer else ", no tokenizer"))
    return Detection(folder, "Meta LLaMA", ", ".join(phrases), _holds(llama=num_shards > 0, tokenizer=has_tokenizer))


def _by_config(folder: Path) -> Detection | None:
    raw = read_json(folder / CONFIG_FILE)
    own_format = raw.get("format")
    if isinstance(own_format, str) and own_format.startswith(_OWN_FORMAT):
        return Detection(folder, "mu-llama folder", f"named {raw.get('name')!r}, format {own_format}")
    # MERT's own code reads its config without looking at the type.
    model_type = raw.get("model_type", "mert_model" if "conv_kernel" in raw else None)
    if model_type is None:
        return None
    num_files = sum(path.is_file() for pattern in _HUB_WEIGHTS for path in folder.glob(pattern))
    note = f"{raw.get('num_hidden_layers')} layers of width {raw.get('hidden_size')}, "
    note += f"weights in {_count(num_files, 'file')}" if num_files else "no weights"
    if model_type in _MERT_TYPES:
        return Detection(folder, "MERT", note, _holds(encoder=num_files > 0))
    if model_type != "llama":
        return Detection(folder, "unknown", f"a Hugging Face model of type {model_type!r}")
    has_tokenizer = any((folder / name).is_file() for name in (SENTENCEPIECE_FILE, FAST_TOKENIZER_FILE))
    note += "" if has_tokenizer else ", no tokenizer"
    note += ", quantized: not supported" if raw.get("quantization_config") else ""
    return Detection(folder, "Hugging Face LLaMA", note, _holds(llama=num_files > 0, tokenizer=has_tokenizer))


def _by_peft_config(folder: Path) -> Detection | None:
    if "peft_type" not in read_json(folder / PEFT_FILE):
        return None
    return Detection(folder, "peft adapter", "not supported")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _holds(*, llama: bool = False, encoder: bool = False, tokenizer: bool = False) -> frozenset[Part]:
    there: dict[Part, bool] = {"llama": llama, "encoder": encoder, "tokenizer": tokenizer}
    return frozenset(part for part, is_there in there.items() if is_there)
