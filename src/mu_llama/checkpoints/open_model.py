"""From what a user names to a model that is ready to listen."""

from __future__ import annotations

import difflib
import importlib.resources
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from mu_llama.audio.windows import PLANS, WindowPlan
from mu_llama.checkpoints.assembling import Placement, fill, prepare
from mu_llama.checkpoints.detect import choose_parts, detect, explain_wrong_role, scan_tree
from mu_llama.checkpoints.embedded import PACKAGED, provide_llama
from mu_llama.checkpoints.llama_source import open_tokenizer, read_llama
from mu_llama.checkpoints.native import native_parts, read_model_config
from mu_llama.checkpoints.published_model import published_parts
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.devices import LoadedProcess
from mu_llama.encoders import build_encoder
from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import CheckpointError, ConfigError, ModelNotFoundError
from mu_llama.hub import fetch, is_hub_id, name_or_path
from mu_llama.model.mu_llama import MuLlama
from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.text.tokenizer import Tokenizer

EMBEDDED = ("mini",)
"""Models that ship inside the package."""
_HUB_FILES = ("*.json", "*.safetensors", "*checkpoint.pth", "*consolidated.*.pth", "*tokenizer.model", "*.md")
_EXPECTED = "mini, a mu-llama model folder, a published checkpoint.pth, the folder it is in, or a hub id"


@dataclass(frozen=True)
class OpenedModel:
    """Everything that answers need, each part still exchangeable."""

    parts: ModelSpec
    """What it was made of, still on disk."""
    tokenizer: Tokenizer
    """Of the LLaMA."""
    make_model: Callable[[], MuLlama]
    """Reads adapter and LLaMA to their device."""
    make_encoder: Callable[[], Encoder]
    """Builds the audio encoder; called when something has to be heard."""
    process: LoadedProcess = field(default_factory=lambda: LoadedProcess("cpu"))
    """Where it was opened."""
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model(self) -> MuLlama:
        """Adapter and LLaMA, on their device, in eval mode; read on first use, so after the first track is heard."""
        self.process.check()
        with self._reading:
            return self._model

    @cached_property
    def _model(self) -> MuLlama:
        return self.make_model()

    @property
    def plan(self) -> WindowPlan:
        """Which seconds it hears unless told otherwise."""
        return PLANS[self.parts.window]


def embedded_folder(name: str) -> Path:
    """Where an embedded model's folder is inside the installed package."""
    return Path(str(importlib.resources.files("mu_llama"))) / "embedded" / name


def open_model(
    model: str | PathLike[str],
    *,
    llama: str | PathLike[str] | None = None,
    encoder: str | PathLike[str] | None = None,
    placement: Placement,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
) -> OpenedModel:
    """Open a model by name or path.

    Args:
        model: see `find_parts`.
        llama: see `find_parts`.
        encoder: see `find_parts`.
        placement: where it runs.
        home: cache folder, for the embedded model's LLaMA.
        report: told what takes long.
        progress: follows the loading.

    Raises:
        ModelNotFoundError: if nothing of that name is there.
        CheckpointError: if the files don't fit together.
        ConfigError: if an argument is missing or does not apply.
    """
    parts = find_parts(
        name_or_path(model, role="model"),
        llama=None if llama is None else name_or_path(llama, role="llama"),
        encoder=None if encoder is None else name_or_path(encoder, role="encoder"),
        home=home,
        report=report,
    )
    assembly = prepare(parts, placement)
    return OpenedModel(
        parts=parts,
        tokenizer=open_tokenizer(parts.llama, parts.template),
        make_model=lambda: fill(assembly, progress=progress),
        make_encoder=lambda: make_encoder(parts, device=str(placement.device)),
        process=LoadedProcess(str(placement.device)),
    )


def find_parts(
    model: str | Path,
    *,
    llama: str | Path | None = None,
    encoder: str | Path | None = None,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
) -> ModelSpec:
    """Find all parts of a model; only headers are read.

    Args:
        model: `mini`, a mu-llama model folder, a published checkpoint (.pth), a folder tree that holds one, or a
            hub id.
        llama: Meta, Hugging Face or GGUF LLaMA or hub id beside a published checkpoint. Where the checkpoint
            holds the LLaMA itself, a params.json with its tokenizer.model is enough, and may lie beside it.
        encoder: MERT folder or hub id beside a published checkpoint that holds no MERT.
        home: cache folder, for the embedded model's LLaMA.
        report: told what takes long.

    Raises:
        ModelNotFoundError: if nothing of that name is there.
        CheckpointError: if the files don't fit together.
        ConfigError: if an argument is missing or does not apply.
    """
    path = embedded_folder(str(model)) if str(model) in EMBEDDED else Path(model).expanduser()
    if not path.exists():
        path = _from_hub(str(model))
    is_native = path.is_dir() and detect(path).kind == "mu-llama folder"
    if path.is_dir() and not is_native:
        named = {"llama": llama, "encoder": encoder}
        given: list[Any] = [role for role, value in named.items() if value is not None]
        chosen = choose_parts(scan_tree(path), path, given=given)
        path, llama, encoder = chosen.model, llama or chosen.llama, encoder or chosen.encoder
    if path.is_dir():
        if llama is not None or encoder is not None:
            raise ConfigError(f"model {str(model)!r} brings its own LLaMA and encoder; leave out --llama and --encoder")
        return _native(path, home=home, report=report)
    wrong = explain_wrong_role(path, "model")
    if wrong is not None:
        raise CheckpointError(wrong)
    return published_parts([path], llama=llama, encoder=encoder)


def make_encoder(parts: ModelSpec, *, device: str) -> Encoder:
    """Build a model's audio encoder.

    Raises:
        CheckpointError: if its files don't fit together.
    """
    spec = dict(parts.encoder.spec)
    if parts.encoder.tensors:
        from mu_llama.encoders.mert.encoder import load_mert_from_tensors, published_config

        tensors = {name: stored.read() for name, stored in parts.encoder.tensors.items()}
        config = parts.encoder.config or published_config(tensors, source=parts.source)
        return load_mert_from_tensors(tensors, config, device=device, source=parts.source)
    return build_encoder({**spec, "device": device} if spec["kind"] == "mert" else spec)


def _from_hub(name: str) -> Path:
    near = difflib.get_close_matches(name, EMBEDDED, n=1)
    if not is_hub_id(name) or near:
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelNotFoundError(f"no model {name!r}: expected {_EXPECTED}{hint}")
    return fetch(name, patterns=_HUB_FILES, expected=_EXPECTED)


def _native(folder: Path, *, home: Path, report: Callable[[str], None]) -> ModelSpec:
    config = read_model_config(folder)
    if config.window not in PLANS:
        raise CheckpointError(f"{folder}: window is {config.window!r}; expected {' or '.join(PLANS)}")
    if "folder" in config.llama:
        return native_parts(folder, config, read_llama(folder / config.llama["folder"]))
    packaged = PACKAGED.get(config.llama["packaged"])
    if packaged is None:
        raise CheckpointError(f"{folder}: embedded LLaMA {config.llama['packaged']!r} is unknown; update mu-llama")
    return native_parts(folder, config, read_llama(provide_llama(packaged, home, report=report)))
