"""Training runs at tiny size: settings, starting and stopping them, and what they wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from mu_llama.training import session
from mu_llama.training.config import TrainConfig
from mu_llama.training.config_file import parse_config
from mu_llama.training.session import TrainingResult, train

SET_A = Path(__file__).parents[2] / "golden" / "set_a"


class Stop(BaseException):
    """Stands for a kill."""


class Stopping:
    """A callback that raises `Stop` after an update, before anything of it is saved."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_start(self, *_: object) -> None: ...

    def on_validation(self, *_: object) -> None: ...

    def on_samples(self, *_: object) -> None: ...

    def on_step(self, step: Any) -> None:
        if step.update == self.after:
            raise Stop


def settings(data: Path, out: Path, *, phase: str = "finetune") -> dict[str, Any]:
    """Eight updates of 2 x 2 rows, going on from a published checkpoint."""
    base = {"base": str(SET_A / "checkpoint_finetune.pth"), "llama": str(SET_A / "llama")}
    return {
        "name": "tiny",
        "phase": phase,
        "model": base | {"encoder": {"kind": "mert", "path": str(SET_A / "mert")}},
        "data": {"train": [{"path": str(data)}], "validation_fraction": 0.25, "max_tokens": 160},
        "optimiser": {"lr": 1e-3, "weight_decay": 0.0},
        "schedule": {"steps": 8, "warmup_steps": 1},
        "batch": {"size": 2, "accumulate": 2},
        "precision": {"dtype": "fp32"},
        "run": {"out": str(out), "save_every_steps": 2, "validate_every_steps": 4},
    }


def as_yaml(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def start(
    config: TrainConfig, home: Path, *, stop_after: int | None = None, plot: Callable[..., None] | None = None
) -> TrainingResult:
    """Train; drawing the losses takes as long as the tiny training itself, so `plot` is called instead."""
    callback = None if stop_after is None else Stopping(stop_after)
    try:
        with mock.patch.object(session, "plot_losses", plot or mock.Mock()):
            return train(config, home=home, callback=callback)
    finally:  # accelerate keeps the precision of a process's first run
        AcceleratorState._reset_state(reset_partial_state=True)


def run(
    data: Path, out: Path, home: Path, *changes: str, phase: str = "finetune", stop_after: int | None = None
) -> TrainingResult:
    return start(parse_config(settings(data, out, phase=phase), changes), home, stop_after=stop_after)


def losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def trained(out: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(out / name / "adapter.safetensors") | load_file(out / name / "lora.safetensors")


def same_weights(one: Path, other: Path, atol: float = 0.0) -> bool:
    """Whether two runs exported the same names with values that differ by at most `atol`."""
    first, second = trained(one), trained(other)
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], rtol=0 if atol == 0 else 1e-5, atol=atol) for name in first
    )


def environment(home: Path) -> dict[str, str]:
    """Of a process that trains."""
    return {**os.environ, "MU_LLAMA_HOME": str(home), "OMP_NUM_THREADS": "1"}
