"""Write a model of any layout as one folder of ours, or its LLaMA as GGUF, tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mu_llama.arrays import DType
from mu_llama.checkpoints.formats.encoder import encoder_bytes, encoder_sources, encoder_spec, write_encoder
from mu_llama.checkpoints.formats.gguf_writing import write_gguf
from mu_llama.checkpoints.formats.hugging_face import write_llama_folder
from mu_llama.checkpoints.formats.native import ModelConfig, write_model_files
from mu_llama.checkpoints.lora import adapter_dtype, merged_adapter, merged_llama
from mu_llama.checkpoints.model_card import CARD_FILE, Provenance, hash_files, write_card
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.checkpoints.staging import check_space, check_target, disk_errors_named, staging
from mu_llama.devices import DTYPES
from mu_llama.errors import ConfigError
from mu_llama.progress import ProgressCallback, no_progress

LLAMA_FOLDER, ENCODER_FOLDER = "llama", "encoder"
GGUF_TAKES_NO_AUDIO = "takes no audio: the audio adapter isn't part of a GGUF file"
"""What to say of the language model in a GGUF file."""
_GGUF_NOTE = f"The language model of a MU-LLaMA, LoRA merged. It {GGUF_TAKES_NO_AUDIO}."


@dataclass(frozen=True)
class ConvertOptions:
    """How a model is written."""

    merge: bool = False
    """Merge LoRA, biases and norms into the LLaMA, instead of keeping them beside it."""
    dtype: str | None = None
    """Of the LLaMA and the adapter's big matrices: bf16, fp16 or fp32; None keeps what each is stored in. A dtype of
    numpy's or torch's does too."""
    encoder: Literal["auto", "copy", "reference"] = "auto"
    """Copy the audio encoder into the folder or name where it is; auto copies unless it is a hub id."""
    overwrite: bool = False
    """Replace what is at the target."""
    quantize: Literal["int8", "int4"] | None = None
    """Width of the LLaMA's linear layers in an onnx graph (`engine.onnx.convert`), which alone takes it; None is int8
    for small LLaMAs, int4 for others."""

    @property
    def stored_dtype(self) -> DType | None:
        """The dtype that is meant.

        Raises:
            ConfigError: if there is none of that name.
        """
        if self.dtype is None:
            return None
        name = str(getattr(self.dtype, "__name__", self.dtype)).removeprefix("torch.")
        name = DTYPES.get(name, name)
        if name not in DTYPES.values():
            raise ConfigError(f"dtype {self.dtype!r} is unknown; expected {', '.join(DTYPES)}")
        return np.dtype(name)


def convert_to_folder(
    parts: ModelSpec, target: Path, options: ConvertOptions, *, progress: ProgressCallback = no_progress
) -> None:
    """Write a mu-llama model folder; it appears whole or not at all, and goes on where a kill stopped it.

    Args:
        parts: what is written.
        target: the folder; must not exist, unless `overwrite` is set.
        options: how.
        progress: follows the work, in bytes.

    Raises:
        ConfigError: if the target exists.
        CheckpointError: if something doesn't fit together or the disk is too small.
    """
    _refuse_quantize(options)
    dtype = options.stored_dtype
    merged_in, tuning = (parts.tuning, {}) if options.merge else ({}, parts.tuning)
    adapter = merged_adapter(parts) if options.merge else dict(parts.adapter)
    config, llama = merged_llama(parts.llama, merged_in, dtype=dtype, source=parts.source)
    if dtype is not None:
        adapter = {name: adapter_dtype(name, value, dtype) for name, value in adapter.items()}
    spec = encoder_spec(parts.encoder, options.encoder, folder=ENCODER_FOLDER)
    tensors = [*llama.values(), *adapter.values(), *tuning.values()]
    total = sum(stored.size_bytes for stored in tensors) + encoder_bytes(parts.encoder, spec)
    plan = plan_of(parts, options, kind="folder")
    with staging(target, plan, needed_bytes=total, overwrite=options.overwrite) as folder:
        sources = (*parts.files, *parts.llama.files, *encoder_sources(parts.encoder, spec))
        hashes = hash_files(sources, progress=progress)
        advance = progress("writing", total)
        write_llama_folder(folder / LLAMA_FOLDER, config, llama, parts.llama.tokenizer, advance=advance)
        write_encoder(folder / ENCODER_FOLDER, parts.encoder, spec, advance=advance)
        model_config = ModelConfig(
            name=parts.name,
            prompt=parts.template.name,
            adapter=parts.adapter_config,
            encoder=spec,
            llama={"folder": LLAMA_FOLDER},
            licences=dict(parts.licences),
            window=parts.window,
        )
        stored_as = "as stored" if dtype is None else str(dtype)
        provenance = Provenance(hashes.result(), merged=options.merge, dtype=stored_as)
        write_card(folder / CARD_FILE, parts, model_config, provenance)
        write_model_files(folder, model_config, adapter=adapter, tuning=tuning, advance=advance)


def convert_to_gguf(
    parts: ModelSpec, target: Path, options: ConvertOptions, *, progress: ProgressCallback = no_progress
) -> None:
    """Write the tuned LLaMA alone, merged, for llama.cpp; the audio adapter has no place there.

    Raises:
        ConfigError: if the target exists.
        CheckpointError: if something doesn't fit together or the disk is too small.
    """
    _refuse_quantize(options)
    check_target(target, overwrite=options.overwrite)
    config, merged = merged_llama(parts.llama, parts.tuning, dtype=options.stored_dtype, source=parts.source)
    total = sum(stored.size_bytes for stored in merged.values())
    check_space(target.parent, total)
    with disk_errors_named(target):
        write_gguf(
            target,
            config,
            merged,
            parts.llama.tokenizer,
            name=parts.name,
            description=_GGUF_NOTE,
            licence=parts.licences.get("LLaMA"),
            advance=progress("writing", total),
        )


def _refuse_quantize(options: ConvertOptions) -> None:
    if options.quantize is not None:
        raise ConfigError(f"--quantize {options.quantize} is for an onnx graph; add --to onnx, or leave it out")


def plan_of(parts: ModelSpec, options: ConvertOptions, *, kind: str) -> str:
    """Write down what is converted to what and how, for `staging`."""
    chosen = str({**asdict(options), "dtype": str(options.stored_dtype)})
    return json.dumps([kind, chosen, [_stamp(path) for path in (*parts.files, *parts.llama.files)]])


def _stamp(path: Path) -> list[object]:
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
