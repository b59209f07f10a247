"""MERT's weights: found, downloaded, read, and named as transformers' HubertModel names them."""

from __future__ import annotations

import difflib
import json
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mu_llama.errors import CheckpointError, ModelNotFoundError
from mu_llama.hub import fetch, is_hub_id, refuse_lfs_pointer

PREFIXES = ("mert_model.", "hubert.")
"""What may stand before every name: the first in MU-LLaMA checkpoints, the second in models with a head."""

RENAMED = (
    ("encoder.pos_conv_embed.conv.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    ("encoder.pos_conv_embed.conv.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
)
"""Old and new spelling of the positional convolution's weight norm; published files have the old one."""

MAY_BE_EXTRA = frozenset(
    {
        "masked_spec_embed",
        "label_embs_concat",
        "final_proj.weight",
        "final_proj.bias",
        "lm_head.weight",
        "lm_head.bias",
    }
)
"""Names that serve training only (SpecAugment's mask, prediction heads) and are left out.

No name may be missing: what HubertModel has here, all of it shapes the features.
"""


def fit_names(tensors: Mapping[str, torch.Tensor], *, source: str) -> dict[str, torch.Tensor]:
    """Bring names to HubertModel's spelling: no prefix, new weight norm, no training-only tensors.

    Raises:
        CheckpointError: if two of the given names mean the same tensor.
    """
    origins: dict[str, str] = {}
    fitted: dict[str, torch.Tensor] = {}
    renamed = dict(RENAMED)
    for given, tensor in tensors.items():
        name = next((given.removeprefix(prefix) for prefix in PREFIXES if given.startswith(prefix)), given)
        if name in MAY_BE_EXTRA:
            continue
        name = renamed.get(name, name)
        if name in fitted:
            raise CheckpointError(f"{source} holds {origins[name]} and {given}, two spellings of {name}: remove one")
        origins[name] = given
        fitted[name] = tensor
    return fitted


def check_mert_fit(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Compare names and shapes with those of the model that config.json describes.

    Raises:
        CheckpointError: naming each tensor that is missing, unexpected or of another shape.
    """
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    problems = [f"lacks {_with_nearest(name, unexpected)}" for name in missing]
    problems += [f"holds the unknown {_with_nearest(name, expected)}" for name in unexpected]
    problems += [
        f"holds {name} of shape {tuple(tensor.shape)} where the config asks for {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"{source} doesn't fit its config: it {shown}{more}. Take config.json and weights from one model"
        )


def _with_nearest(name: str, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=2)
    return f"{name} (nearest: {', '.join(nearest)})" if nearest else name


SAFETENSORS_FILE = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PYTORCH_FILE = "pytorch_model.bin"


def find_mert_folder(path_or_id: str | Path, *, revision: str | None = None) -> Path:
    """Give the folder itself, or the local copy of a hub id, downloaded where needed.

    Raises:
        ModelNotFoundError: if it is neither.
    """
    folder = Path(path_or_id)
    return folder if folder.is_dir() else _download(str(path_or_id), revision=revision)


def read_mert_tensors(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """Read a MERT folder's weights, memory-mapped where the format allows.

    Args:
        folder: holds `model.safetensors`, `model.safetensors.index.json` with its shards, or
            `pytorch_model.bin`; the first of these that exists is read.

    Returns:
        The tensors under the file's own names, and the file that errors should point at.

    Raises:
        ModelNotFoundError: if there is none of these files, or a shard is missing.
        CheckpointError: if a file is damaged or isn't a plain table of tensors.
    """
    if (folder / SAFETENSORS_FILE).is_file():
        path = folder / SAFETENSORS_FILE
        return _read_safetensors(path), path
    if (folder / SAFETENSORS_INDEX).is_file():
        path = folder / SAFETENSORS_INDEX
        return _read_shards(path), path
    if (folder / PYTORCH_FILE).is_file():
        path = folder / PYTORCH_FILE
        return _read_pytorch(path), path
    raise ModelNotFoundError(
        f"{folder} has no weights; expected {SAFETENSORS_FILE}, {SAFETENSORS_INDEX} or {PYTORCH_FILE}"
    )


def _download(hub_id: str, *, revision: str | None) -> Path:
    expected = "the folder of a MERT model or a hub id such as m-a-p/MERT-v1-330M"
    if not is_hub_id(hub_id):
        raise ModelNotFoundError(f"{hub_id} isn't a folder; expected {expected}")
    described = ["config.json", "preprocessor_config.json"]
    safe = [SAFETENSORS_FILE, SAFETENSORS_INDEX, "model-*.safetensors"]
    folder = fetch(hub_id, patterns=described + safe, expected=expected, revision=revision)
    if not any((folder / name).is_file() for name in (SAFETENSORS_FILE, SAFETENSORS_INDEX, PYTORCH_FILE)):
        folder = fetch(hub_id, patterns=[*described, PYTORCH_FILE], expected=expected, revision=revision)
    return folder


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    refuse_lfs_pointer(path)
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}): download it again") from error
    return tensors


def _read_shards(index: Path) -> dict[str, torch.Tensor]:
    refuse_lfs_pointer(index)
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({str(shard) for shard in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} isn't an index of shards: download it again") from error
    tensors: dict[str, torch.Tensor] = {}
    for shard in shards:
        path = index.parent / shard
        if Path(shard).name != shard:
            raise CheckpointError(f"{index} names the shard {shard!r}; expected a file name without folders")
        if not path.is_file():
            raise ModelNotFoundError(f"{path} is missing; {index.name} names it: download the model completely")
        tensors.update(_read_safetensors(path))
    return tensors


def _read_pytorch(path: Path) -> dict[str, torch.Tensor]:
    refuse_lfs_pointer(path)
    try:
        # Only the zip format, torch's own since 1.6, can be mapped.
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} can't be read as plain tensors; it's damaged or holds code: use the model's safetensors"
        ) from error
    if not isinstance(contents, dict) or not all(isinstance(value, torch.Tensor) for value in contents.values()):
        raise CheckpointError(f"{path} holds other things than tensors; expected a table of names and tensors")
    return contents
