"""A published checkpoint with its LLaMA and its MERT: one model in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mu_llama.checkpoints.detect import explain_wrong_role
from mu_llama.checkpoints.hugging_face import CONFIG_FILE
from mu_llama.checkpoints.json_files import read_json
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.llama_source import read_llama
from mu_llama.checkpoints.meta_llama import PARAMS_FILE
from mu_llama.checkpoints.published import adapter_config, adapter_tensors, read_published, tuning_tensors
from mu_llama.checkpoints.spec import EncoderSpec, ModelSpec
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.hub import refuse_lfs_pointer
from mu_llama.text.prompts import ALPACA_PUBLISHED

_LICENCES = {
    "adapter": "MIT (as published)",
    "LLaMA": "Meta's community licence of the LLaMA in use",
    "MERT": "CC-BY-NC-4.0",
}


def published_parts(paths: Sequence[Path], *, llama: str | Path | None, encoder: str | Path | None) -> ModelSpec:
    """Describe a published model.

    Args:
        paths: one checkpoint, or a base and the deltas that go on top of it.
        llama: as `llama_source.read_llama` takes it; may be None if the checkpoint holds the LLaMA and params.json
            with tokenizer.model lie beside it.
        encoder: MERT folder or hub id; may be None if the checkpoint holds it.

    Raises:
        ConfigError: if a part is missing.
        CheckpointError: if parts don't fit together.
    """
    path = paths[0]
    tensors = read_published(paths)
    if llama is None and tensors.holds_llama and (path.parent / PARAMS_FILE).is_file():
        llama = path.parent / PARAMS_FILE
    if llama is None:
        needed = (
            "params.json and tokenizer.model of the LLaMA inside" if tensors.holds_llama else "LLaMA it was made for"
        )
        raise ConfigError(f"{path}: needs the {needed}; add --llama FOLDER")
    weights = {name: value for name, value in tensors.llama.items() if not name.endswith(".bias")}
    base = read_llama(llama, weights=weights if tensors.holds_llama else None)
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
        encoder=_encoder_parts(path, tensors.encoder, encoder),
        window="published",
        licences=_LICENCES,
        source=str(path),
        files=tuple(paths),
    )


def _encoder_parts(checkpoint: Path, tensors: Mapping[str, LazyTensor], encoder: str | Path | None) -> EncoderSpec:
    """A MERT folder or hub id comes first; a folder with only a config.json describes the MERT in the checkpoint."""
    if encoder is None:
        if tensors:
            return EncoderSpec({"kind": "mert"}, tensors)
        raise ConfigError(f"{checkpoint}: needs the MERT it was made with; add --encoder with a MERT folder or hub id")
    folder = Path(encoder)
    if tensors and (folder / CONFIG_FILE).is_file() and not _weights(folder):
        return EncoderSpec({"kind": "mert"}, tensors, read_json(folder / CONFIG_FILE))
    wrong = explain_wrong_role(folder, "encoder")
    if wrong is not None:
        raise CheckpointError(wrong)
    if folder.is_dir():
        for path in _weights(folder):  # they are read when the first track is heard
            refuse_lfs_pointer(path)
    return EncoderSpec({"kind": "mert", "path": str(encoder)})


def _weights(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
