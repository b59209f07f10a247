"""The end of a run: a model folder that `load` opens, its card, and a plot of the losses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mu_llama.arrays import to_numpy
from mu_llama.cache_folder import choose_library_folder, has_writable_user_home
from mu_llama.checkpoints.embedded import PACKAGED, converted_folder
from mu_llama.checkpoints.formats.encoder import encoder_sources, encoder_spec, write_encoder
from mu_llama.checkpoints.formats.hugging_face import write_llama_folder
from mu_llama.checkpoints.formats.native import ModelConfig, write_model_files
from mu_llama.checkpoints.lazy_tensor import in_memory
from mu_llama.checkpoints.model_card import CARD_FILE, Provenance, hash_files, write_card
from mu_llama.checkpoints.spec import LlamaSpec, ModelSpec
from mu_llama.training.config import TrainConfig
from mu_llama.training.config_file import config_to_dict

_ENCODER_FOLDER, _LLAMA_FOLDER = "encoder", "llama"


def export_model(
    folder: Path,
    parts: ModelSpec,
    *,
    adapter: Mapping[str, Tensor],
    tuning: Mapping[str, Tensor],
    home: Path,
    config: TrainConfig,
    facts: Mapping[str, Any],
) -> None:
    """Write the trained model; the LLaMA and the encoder are named where they are, or copied out of a checkpoint.

    Args:
        folder: written in one step; an existing one is replaced.
        parts: what training began with.
        adapter: trained or not.
        tuning: LoRA, biases, norms.
        home: cache folder, where embedded LLaMAs live.
        config: of the run.
        facts: for the card: scores, data hashes, versions.
    """
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    stored = {name: in_memory(to_numpy(value)) for name, value in adapter.items()}
    tuned = {name: in_memory(to_numpy(value)) for name, value in tuning.items()}
    spec = encoder_spec(parts.encoder, "reference", folder=_ENCODER_FOLDER)
    model_config = ModelConfig(
        name=parts.name,
        prompt=parts.template.name,
        adapter=parts.adapter_config,
        encoder=spec,
        llama=_llama_reference(parts.llama, home) or _copy_llama(parts.llama, scratch / _LLAMA_FOLDER),
        licences=dict(parts.licences),
        window=parts.window,
    )
    write_encoder(scratch / _ENCODER_FOLDER, parts.encoder, spec, advance=lambda _: None)
    sources = hash_files((*parts.files, *encoder_sources(parts.encoder, spec))).result()
    card = scratch / CARD_FILE
    write_card(card, dataclasses.replace(parts, tuning=tuned), model_config, Provenance(sources, False, "as stored"))
    with card.open("a", encoding="utf-8") as file:
        file.write(_training_section(config, facts))
    write_model_files(scratch, model_config, adapter=stored, tuning=tuned)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.replace(folder)


def _llama_reference(llama: LlamaSpec, home: Path) -> dict[str, str] | None:
    """Name the LLaMA where it is; None if its weights were in a checkpoint."""
    for name, packaged in PACKAGED.items():
        if llama.source == str(converted_folder(packaged, home)):
            return {"packaged": name}
    has_weights = any(path.suffix in (".safetensors", ".bin", ".pth", ".gguf") for path in llama.files)
    return {"folder": str(Path(llama.source).resolve())} if has_weights else None


def _copy_llama(llama: LlamaSpec, folder: Path) -> dict[str, str]:
    write_llama_folder(folder, llama.config, llama.tensors, llama.tokenizer)
    return {"folder": _LLAMA_FOLDER}


def _training_section(config: TrainConfig, facts: Mapping[str, Any]) -> str:
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    settings = json.dumps(config_to_dict(config), indent=2)
    return f"\n## Training\n\n{lines}\n\n```json\n{settings}\n```\n"


def plot_losses(path: Path, metrics: Sequence[Mapping[str, Any]]) -> None:
    """Draw training and validation loss and the learning rate over updates; nothing without matplotlib."""
    if not has_writable_user_home():
        choose_library_folder("MPLCONFIGDIR", "matplotlib")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    steps = [row for row in metrics if "loss" in row]
    checks = [row for row in metrics if "validation_loss" in row]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    losses = [row["loss"] for row in steps]
    axis.plot([row["update"] for row in steps], losses, color="0.8", linewidth=1, label="loss of each update")
    axis.plot([row["update"] for row in steps], _smooth(losses), color="tab:blue", label="smoothed")
    if checks:
        places = [row["update"] for row in checks]
        axis.plot(places, [row["validation_loss"] for row in checks], "o-", color="tab:orange", label="validation")
    axis.set(xlabel="update", ylabel="cross entropy (nats a token)")
    lr_axis = axis.twinx()
    lr_axis.plot([row["update"] for row in steps], [row["rate"] for row in steps], ":", color="tab:green")
    lr_axis.set_ylabel("learning rate", color="tab:green")
    axis.legend(loc="upper right")
    figure.savefig(path, dpi=120)


def _smooth(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Exponential mean, corrected for its start."""
    smoothed, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(mean / weight)
    return smoothed
