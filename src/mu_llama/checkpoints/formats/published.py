"""A checkpoint of the published system: recognised, and read with its LLaMA and its MERT as one model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mu_llama.checkpoints.formats.format import UNKNOWN, Companions, Detection, Format, Part, parts_held, read_json
from mu_llama.checkpoints.formats.hugging_face import CONFIG_FILE
from mu_llama.checkpoints.formats.meta import PARAMS_FILE
from mu_llama.checkpoints.formats.published_tensors import (
    PREFIXES,
    adapter_config,
    adapter_tensors,
    read_published,
    tuning_tensors,
)
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.spec import EncoderSpec, ModelSpec
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.text.prompts import ALPACA_PUBLISHED

KIND = "published checkpoint"
BASELINE_KIND = "ImageBind-LLM baseline"
_ENCODER = "mert"
_LICENCES = {
    "adapter": "MIT (as published)",
    "LLaMA": "Meta's community licence of the LLaMA in use",
    "MERT": "CC-BY-NC-4.0",
}


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
    holds = parts_held(
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
