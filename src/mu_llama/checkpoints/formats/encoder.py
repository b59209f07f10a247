"""The audio encoder's part of a model: its folder recognised, described, built, and copied into a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from mu_llama.checkpoints.formats.format import Detection, Format, present_parts, read_json
from mu_llama.checkpoints.formats.hugging_face import CONFIG_FILE, WEIGHT_FILES, WEIGHTS_FILE, describe_folder
from mu_llama.checkpoints.formats.tensor_files import write_safetensors
from mu_llama.checkpoints.spec import EncoderSpec, ModelSpec
from mu_llama.encoders import ENCODERS, build_encoder, encoder_kind
from mu_llama.encoders.protocol import Encoder, EncoderKind
from mu_llama.hub import refuse_lfs_pointer

_COPIED = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json", "LICENSE*")
_COPIED_PICKLES = ("pytorch_model.bin",)


def encoder_format(kind: EncoderKind) -> Format:
    """Describe an encoder that has a folder of its own as a weight format."""

    def recognise(folder: Path) -> Detection | None:
        config = read_json(folder / CONFIG_FILE)
        if kind.recognise is None or not kind.recognise(config):
            return None
        note, has_weights = describe_folder(folder, config)
        return Detection(folder, kind.title, note, present_parts(encoder=has_weights))

    return Format(
        kind.title,
        f"a {kind.title}",
        role="encoder",
        settings_file=CONFIG_FILE,
        recognise_folder=recognise,
        files=(*WEIGHT_FILES, "tokenizer*"),
        weight_prefixes=kind.weight_prefixes,
        weights=f"{kind.title} weights",
    )


def read_encoder_folder(where: str | Path, *, default: str = "mert") -> EncoderSpec:
    """Describe the encoder of a folder or hub id; its weights are read when the first track is encoded.

    Args:
        where: a folder that `encoder_format` recognises, or a hub id.
        default: kind of a hub id, which isn't downloaded to find out.

    Raises:
        CheckpointError: if a file of weights wasn't downloaded.
    """
    folder = Path(where)
    name = default
    if folder.is_dir():
        for path in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")):
            refuse_lfs_pointer(path)
        kinds = [kind for kind in ENCODERS.values() if kind.recognise is not None and (folder / CONFIG_FILE).is_file()]
        matches = [kind.name for kind in kinds if kind.recognise and kind.recognise(read_json(folder / CONFIG_FILE))]
        name = matches[0] if matches else default
    return EncoderSpec({"kind": name, "path": str(where)})


def make_encoder(parts: ModelSpec, *, device: str) -> Encoder:
    """Build a model's audio encoder.

    Raises:
        CheckpointError: if its files don't fit together.
    """
    spec = parts.encoder
    if not spec.tensors:
        return build_encoder(spec.spec, device=device)
    kind = encoder_kind(spec.spec)
    assert kind.from_tensors is not None, "only such kinds are found in a checkpoint"
    tensors = {name: stored.read() for name, stored in spec.tensors.items()}
    return kind.from_tensors(tensors, spec.config, device=device, source=parts.source)


def encoder_spec(encoder: EncoderSpec, how: Literal["auto", "copy", "reference"], *, folder: str) -> dict[str, Any]:
    """Settings for a model folder's config.

    Args:
        encoder: of the model.
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
        CheckpointError: if a checkpoint holds an encoder of unknown sizes.
    """
    if spec.get("path") != folder.name:
        return
    folder.mkdir(exist_ok=True)
    kind = encoder_kind(encoder.spec)
    if encoder.tensors:
        assert kind.settings_files is not None, "only such kinds are found in a checkpoint"
        settings = kind.settings_files(encoder.tensors, encoder.config)  # only shapes are looked at
        write_safetensors(folder / WEIGHTS_FILE, encoder.tensors, advance=advance)
        for name, content in settings.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return
    source = Path(encoder.spec["path"]) if kind.find_folder is None else kind.find_folder(encoder.spec["path"])
    for file in _files(source):
        shutil.copyfile(file, folder / file.name)
        advance(file.stat().st_size)


def encoder_sources(encoder: EncoderSpec, spec: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files that `write_encoder` will copy, as far as they are on this machine."""
    path = Path(str(encoder.spec.get("path", "")))
    return tuple(_files(path)) if spec != encoder.spec and not encoder.tensors and path.is_dir() else ()


def _files(folder: Path) -> list[Path]:
    files = sorted(path for pattern in _COPIED for path in folder.glob(pattern))
    if not any(path.suffix == ".safetensors" for path in files):
        files += sorted(path for pattern in _COPIED_PICKLES for path in folder.glob(pattern))
    return files
