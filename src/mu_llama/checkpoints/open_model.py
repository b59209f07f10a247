"""From what a user names to a model that is ready to listen."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mu_llama.audio.windows import FULL, PUBLISHED, WindowPlan
from mu_llama.checkpoints.hugging_face import CONFIG_FILE, TOKENIZER_FILE, read_llama_folder
from mu_llama.checkpoints.meta_llama import find_meta_folder, read_meta_params, read_meta_tensors
from mu_llama.checkpoints.native import assemble_native, read_model_config
from mu_llama.checkpoints.provision import PACKAGED, provide_llama
from mu_llama.checkpoints.published import PublishedTensors, assemble_published, read_published
from mu_llama.encoders import build_encoder
from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import CheckpointError, ConfigError, ModelNotFoundError
from mu_llama.model.mu_llama import MuLlama
from mu_llama.prompts import ALPACA_PUBLISHED, PromptTemplate, template_by_name
from mu_llama.tokenizer import Tokenizer, load_fast_tokenizer, load_sentencepiece

EMBEDDED = ("mini",)
"""Models that ship inside the package."""
_CHATML_END = ("<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True)
class OpenedModel:
    """Everything that answers need, each part still exchangeable."""

    name: str
    """What an answer says it was written by."""
    model: MuLlama
    """Adapter and LLaMA, on their device, in eval mode."""
    tokenizer: Tokenizer
    """Of the LLaMA."""
    template: PromptTemplate
    """How this model's prompts are written."""
    make_encoder: Callable[[], Encoder]
    """Builds the audio encoder; called when something has to be heard."""
    plan: WindowPlan
    """Which seconds it hears unless told otherwise."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Part of the model to the licence that applies."""


def embedded_folder(name: str) -> Path:
    """Where an embedded model's folder is inside the installed package."""
    return Path(str(importlib.resources.files("mu_llama"))) / "embedded" / name


def open_model(
    model: str | Path,
    *,
    llama: str | Path | None = None,
    encoder: str | Path | None = None,
    device: torch.device,
    dtype: torch.dtype,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
) -> OpenedModel:
    """Open a model by name or path.

    Args:
        model: `mini`, a mu-llama model folder, or a published checkpoint (.pth).
        llama: Meta LLaMA folder, needed beside a published checkpoint.
        encoder: MERT folder or hub id, needed beside a published checkpoint that holds no MERT.
        device: where it runs.
        dtype: of the LLaMA.
        home: cache folder, for the embedded model's LLaMA.
        report: told what takes long.

    Raises:
        ModelNotFoundError: if nothing of that name is there.
        CheckpointError: if the files don't fit together.
        ConfigError: if an argument is missing or does not apply.
    """
    name = str(model)
    if name in EMBEDDED or (Path(model) / CONFIG_FILE).is_file():
        if llama is not None or encoder is not None:
            raise ConfigError(f"model {name!r} brings its own LLaMA and encoder; leave out --llama and --encoder")
        folder = embedded_folder(name) if name in EMBEDDED else Path(model)
        return _open_native(folder, device=device, dtype=dtype, home=home, report=report)
    path = Path(model)
    if path.is_file():
        return _open_published(path, llama=llama, encoder=encoder, device=device, dtype=dtype)
    if path.is_dir():
        raise ModelNotFoundError(f"{path}: a folder without {CONFIG_FILE}; expected a mu-llama model folder")
    near = difflib.get_close_matches(name, EMBEDDED, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    known = ", ".join(repr(known) for known in EMBEDDED)
    raise ModelNotFoundError(f"no model {name!r}: expected {known}, a model folder, or a checkpoint file{hint}")


def _open_native(
    folder: Path, *, device: torch.device, dtype: torch.dtype, home: Path, report: Callable[[str], None]
) -> OpenedModel:
    config = read_model_config(folder)
    if "packaged" in config.llama:
        packaged = PACKAGED.get(config.llama["packaged"])
        if packaged is None:
            raise CheckpointError(f"{folder}: embedded LLaMA {config.llama['packaged']!r} is unknown; update mu-llama")
        llama_folder = provide_llama(packaged, home, report=report)
    else:
        llama_folder = folder / config.llama["folder"]
    template = template_by_name(config.prompt)
    model = assemble_native(folder, config, read_llama_folder(llama_folder), dtype=dtype)
    return OpenedModel(
        name=config.name,
        model=model.to(device),
        tokenizer=load_fast_tokenizer(llama_folder / TOKENIZER_FILE, eos_tokens=_CHATML_END),
        template=template,
        make_encoder=lambda: build_encoder(config.encoder),
        plan=FULL,
        licences=config.licences,
    )


def _open_published(
    path: Path,
    *,
    llama: str | Path | None,
    encoder: str | Path | None,
    device: torch.device,
    dtype: torch.dtype,
) -> OpenedModel:
    if llama is None:
        raise ConfigError(f"{path}: a published checkpoint needs the LLaMA it was made for; add --llama FOLDER")
    parts = read_published([path])
    folder = find_meta_folder(Path(llama))
    has_base = "layers.0.attention.wq.weight" in parts.llama
    base = {} if has_base else read_meta_tensors(folder.shards)
    model = assemble_published(parts, base, read_meta_params(folder.params), dtype=dtype)
    tokenizer = load_sentencepiece(folder.tokenizer)
    if tokenizer.vocab_size != model.llama.config.vocab_size:
        raise CheckpointError(
            f"{folder.tokenizer}: {tokenizer.vocab_size} tokens, the LLaMA has {model.llama.config.vocab_size}; "
            "expected the tokenizer.model that came with it"
        )
    return OpenedModel(
        name=path.stem,
        model=model.to(device),
        tokenizer=tokenizer,
        template=ALPACA_PUBLISHED,
        make_encoder=_published_encoder(path, parts, encoder, device),
        plan=PUBLISHED,
        licences={
            "adapter": "MIT (as published)",
            "LLaMA": "Meta's community licence of the LLaMA in use",
            "MERT": "CC-BY-NC-4.0",
        },
    )


def _published_encoder(
    path: Path, parts: PublishedTensors, encoder: str | Path | None, device: torch.device
) -> Callable[[], Encoder]:
    if encoder is not None:
        spec: dict[str, Any] = {"kind": "mert", "path": str(encoder), "device": str(device)}
        return lambda: build_encoder(spec)
    if parts.encoder:
        return lambda: _encoder_from(parts, path, device)
    raise ConfigError(f"{path}: needs the MERT it was made with; add --encoder with a MERT folder or hub id")


def _encoder_from(parts: PublishedTensors, path: Path, device: torch.device) -> Encoder:
    from mu_llama.encoders.mert import load_mert_from_tensors, published_config

    config = published_config(parts.encoder, source=str(path))
    return load_mert_from_tensors(parts.encoder, config, device=str(device), source=str(path))
