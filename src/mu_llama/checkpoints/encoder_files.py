"""The audio encoder's part of a model folder: copied into it, or named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from mu_llama.checkpoints.safetensors_files import write_safetensors
from mu_llama.checkpoints.spec import EncoderSpec
from mu_llama.encoders.mert.encoder import published_config
from mu_llama.encoders.mert.files import SAFETENSORS_FILE, find_mert_folder

_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json", "LICENSE*")
MERT_RATE_HZ = 24000
_PICKLES = ("pytorch_model.bin",)


def encoder_spec(encoder: EncoderSpec, how: Literal["auto", "copy", "reference"], *, folder: str) -> dict[str, Any]:
    """Settings for a model folder's config.

    Args:
        encoder: what hears.
        how: copy it, name where it is, or (auto) copy what is on this machine.
        folder: name of its folder inside the model folder.
    """
    spec = dict(encoder.spec)
    if encoder.tensors:
        return {**spec, "path": folder}
    if "path" not in spec:
        return spec
    path = Path(spec["path"])
    if how == "copy" or (how == "auto" and path.is_dir()):
        return {**spec, "path": folder}
    return {**spec, "path": str(path.resolve()) if path.is_dir() else spec["path"]}


def encoder_bytes(encoder: EncoderSpec, spec: Mapping[str, Any]) -> int:
    """How much `write_encoder` will write, as far as it is known before a download."""
    if encoder.tensors:
        return sum(stored.size_bytes for stored in encoder.tensors.values())
    return sum(file.stat().st_size for file in encoder_sources(encoder, spec))


def write_encoder(
    folder: Path, encoder: EncoderSpec, spec: Mapping[str, Any], *, advance: Callable[[int], None]
) -> None:
    """Write or copy the encoder's files where `spec` says that they are in the model folder.

    Raises:
        OSError: if the disk is full or the folder can't be written.
        CheckpointError: if a checkpoint holds a MERT of unknown sizes.
    """
    if spec.get("path") != folder.name:
        return
    folder.mkdir(exist_ok=True)
    if encoder.tensors:
        # Only shapes are looked at.
        tensors = cast(Mapping[str, Tensor], encoder.tensors)
        config = dict(encoder.config or published_config(tensors, source="the checkpoint's mert_model"))
        write_safetensors(folder / SAFETENSORS_FILE, encoder.tensors, advance=advance)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        preprocessor = {"do_normalize": True, "sampling_rate": config.get("sample_rate", MERT_RATE_HZ)}
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n", encoding="utf-8")
        return
    for file in _files(find_mert_folder(encoder.spec["path"])):
        shutil.copyfile(file, folder / file.name)
        advance(file.stat().st_size)


def encoder_sources(encoder: EncoderSpec, spec: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files that `write_encoder` will copy, as far as they are on this machine."""
    path = Path(str(encoder.spec.get("path", "")))
    return tuple(_files(path)) if spec != encoder.spec and not encoder.tensors and path.is_dir() else ()


def _files(folder: Path) -> list[Path]:
    files = sorted(path for pattern in _FILES for path in folder.glob(pattern))
    if not any(path.suffix == ".safetensors" for path in files):
        files += sorted(path for pattern in _PICKLES for path in folder.glob(pattern))
    return files
