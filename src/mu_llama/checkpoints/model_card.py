"""The card of a converted model: what is in the folder, what it came from, which licences apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama import __version__
from mu_llama.checkpoints.formats.native import ADAPTER_FILE, TUNING_FILE, ModelConfig
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.files import sha256_of
from mu_llama.model.config import AdapterConfig
from mu_llama.progress import ProgressCallback, no_progress

CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class FileHash:
    """A file as it was."""

    name: str
    """Name of its folder and of the file."""
    size_bytes: int
    """Its length."""
    sha256: str
    """Of its content."""


@dataclass(frozen=True)
class Provenance:
    """How a folder came to be."""

    sources: Sequence[FileHash]
    """The files it was made of."""
    merged: bool
    """Whether LoRA, biases and norms are merged into the LLaMA."""
    dtype: str
    """Of the LLaMA."""


def hash_files(paths: Sequence[Path], *, progress: ProgressCallback = no_progress) -> Future[list[FileHash]]:
    """Hash files beside other work; the result waits until it is asked for."""
    advance = progress("hashing sources", sum(path.stat().st_size for path in paths))

    def hash_all() -> list[FileHash]:
        return [
            FileHash(f"{path.parent.name}/{path.name}", path.stat().st_size, sha256_of(path, advance=advance))
            for path in paths
        ]

    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(hash_all)
    pool.shutdown(wait=False)
    return future


def _conditioning_note(sizes: AdapterConfig) -> str:
    if sizes.num_audio_tokens:
        return f"puts {sizes.num_audio_tokens} audio tokens before the prompt"
    return f"conditions the last {sizes.num_conditioned_layers} layers on the track"


def _llama_place(folder: Path, llama: Mapping[str, str]) -> tuple[str, str]:
    """Say where the LLaMA is, and what more is true of it there; other folders' paths stay in config.json."""
    if "packaged" in llama:
        return f"`{llama['packaged']}`, which mu-llama brings; not in this folder", ""
    if "graph" in llama:
        return f"`{llama['graph']}/`, sizes and tokenizer in `{llama['folder']}/`", ", an onnx graph for onnxruntime"
    if _is_inside(folder, llama["folder"]):
        return f"`{llama['folder']}/`", "; opens with transformers too"
    return f"`{Path(llama['folder']).name}`, outside of this folder: `config.json` says where", ""


def _encoder_place(folder: Path, encoder: Mapping[str, Any]) -> str:
    if "path" not in encoder:
        return "inside the package"
    place = str(encoder["path"])
    if _is_inside(folder, place):
        return f"`{place}`"
    shown = Path(place).name if Path(place).is_absolute() else place  # the name of a hub has no private part
    return f"`{shown}`, outside of this folder: `config.json` says where"


def _is_inside(folder: Path, place: str) -> bool:
    return not Path(place).is_absolute() and (folder / place).is_dir()


def write_card(path: Path, parts: ModelSpec, config: ModelConfig, provenance: Provenance) -> None:
    """Write the card, with the fields in front that model hubs read."""
    sizes, llama = config.adapter, parts.llama.config
    where, note = _llama_place(path.parent, config.llama)
    tuning, changed = f"`{TUNING_FILE}`", "what tuning changed in the LLaMA"
    if not parts.tuning:
        tuning, changed = "none", "the LLaMA is as it was"
    elif provenance.merged:
        tuning = "merged into the LLaMA"
    size = f"{llama.num_hidden_layers} layers of width {llama.hidden_size}"
    features = f"{config.encoder['kind']}: {sizes.num_encoder_layers} x {sizes.encoder_width}"
    encoder = _encoder_place(path.parent, config.encoder)
    sources = "\n".join(f"| `{file.name}` | {file.size_bytes} | `{file.sha256}` |" for file in provenance.sources)
    licences = "\n".join(f"- {part}: {licence}" for part, licence in config.licences.items()) or "- unknown"
    path.write_text(
        f"""---
library_name: mu-llama
pipeline_tag: audio-text-to-text
license: other
tags: [music, audio, question-answering, captioning]
---
# {config.name}

Listens to music and answers in words. Open it with `mu_llama.load("FOLDER")` or
`mu-llama ask --model FOLDER -q "What instruments do you hear?" song.mp3`.

| part | where | what |
|---|---|---|
| LLaMA | {where} | {size}, dtype {provenance.dtype}{note} |
| adapter | `{ADAPTER_FILE}` | {_conditioning_note(sizes)} |
| LoRA, biases, norms | {tuning} | {changed} |
| audio encoder | {encoder} | {features} features a track |

Prompt template: `{config.prompt}`. Seconds of a track encoded by default: `{config.window}`.

## Licences that apply

{licences}

## Made of

With mu-llama {__version__}.

| file | bytes | SHA-256 |
|---|---|---|
{sources}
""",
        encoding="utf-8",
    )
