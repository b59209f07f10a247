"""Write a model of any layout as one folder of ours, or its LLaMA as GGUF, tensor by tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock, Timeout

from mu_llama.arrays import DType
from mu_llama.checkpoints.formats.encoder import encoder_bytes, encoder_sources, encoder_spec, write_encoder
from mu_llama.checkpoints.formats.gguf_writing import write_gguf
from mu_llama.checkpoints.formats.hugging_face import write_llama_folder
from mu_llama.checkpoints.formats.native import ModelConfig, write_model_files
from mu_llama.checkpoints.lora import adapter_dtype, merged_adapter, merged_llama
from mu_llama.checkpoints.model_card import CARD_FILE, Provenance, hash_files, write_card
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.devices import DTYPES
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.progress import ProgressCallback, no_progress

LLAMA_FOLDER, ENCODER_FOLDER = "llama", "encoder"
_PLAN_FILE = "convert.json"
# Room for the card, tokenizers and headers.
_SPARE_BYTES = 16_000_000
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
    dtype = options.stored_dtype
    merged_in, tuning = (parts.tuning, {}) if options.merge else ({}, parts.tuning)
    adapter = merged_adapter(parts) if options.merge else dict(parts.adapter)
    config, llama = merged_llama(parts.llama, merged_in, dtype=dtype, source=parts.source)
    if dtype is not None:
        adapter = {name: adapter_dtype(name, value, dtype) for name, value in adapter.items()}
    spec = encoder_spec(parts.encoder, options.encoder, folder=ENCODER_FOLDER)
    tensors = [*llama.values(), *adapter.values(), *tuning.values()]
    total = sum(stored.size_bytes for stored in tensors) + encoder_bytes(parts.encoder, spec)
    with _staging(target, parts, options, needed_bytes=total) as folder:
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
    _check_target(target, options)
    config, merged = merged_llama(parts.llama, parts.tuning, dtype=options.stored_dtype, source=parts.source)
    total = sum(stored.size_bytes for stored in merged.values())
    _check_space(target.parent, total)
    with _disk_errors_named(target):
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


@contextmanager
def _staging(target: Path, parts: ModelSpec, options: ConvertOptions, *, needed_bytes: int) -> Iterator[Path]:
    """Give a folder to write into, which takes the target's place at the end; a kill leaves it to be gone on with."""
    _check_target(target, options)
    folder = target.with_name(f".{target.name}.partial")
    chosen = str({**asdict(options), "dtype": str(options.stored_dtype)})
    plan = json.dumps([chosen, [_stamp(path) for path in (*parts.files, *parts.llama.files)]])
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with _disk_errors_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"{target}: another process is writing it; wait for that or choose another name"
            ) from None
        try:
            if not (folder / _PLAN_FILE).is_file() or (folder / _PLAN_FILE).read_text(encoding="utf-8") != plan:
                shutil.rmtree(folder, ignore_errors=True)
                _check_space(target.parent, needed_bytes)
                folder.mkdir()
                (folder / _PLAN_FILE).write_text(plan, encoding="utf-8")
            try:
                yield folder
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            (folder / _PLAN_FILE).unlink()
            if target.is_dir():
                shutil.rmtree(target)
            folder.replace(target)
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def _disk_errors_named(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, CheckpointError | ConfigError):
            raise
        raise CheckpointError(
            f"{target}: can't be written ({error.strerror or error}); nothing was kept: free space or choose another "
            "folder, and start again"
        ) from error


def _check_target(target: Path, options: ConvertOptions) -> None:
    if options.overwrite or not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    raise ConfigError(f"{target}: exists already; choose another name, or add --overwrite to replace it")


def _check_space(folder: Path, needed_bytes: int) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SPARE_BYTES:
        raise CheckpointError(
            f"{folder}: {free / 1e9:.1f} GB are free, {needed_bytes / 1e9:.1f} GB are needed; free space, choose "
            "another folder, or write half precision with --dtype bf16"
        )


def _stamp(path: Path) -> list[object]:
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
