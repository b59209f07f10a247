"""The folder of a training run: settings, metrics, checkpoints, each written in one step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.files import write_whole

METRICS_FILE, RUN_FILE, SAMPLES_FILE, PLOT_FILE = "metrics.jsonl", "run.json", "samples.jsonl", "loss.png"
MODEL_FOLDER = "model"
_OWN = (MODEL_FOLDER, METRICS_FILE, SAMPLES_FILE, "checkpoints")
# What a run may not change between its checkpoints, besides its settings.
_FIXED_RECORDS = ("data", "counts")
_CUT_OFF = 1 << 62
_STATE_FILE, _WEIGHTS_FILE, _OPTIMIZER_FILE = "state.json", "trained.safetensors", "optimiser.pt"
# Settings that may differ when a run goes on: they say what is written and when, not what is computed.
_FREE_SETTINGS = ("run.save_every_steps", "run.keep_last", "run.keep_best", "run.trackers", "run.out")


@dataclass
class Progress:
    """How far a run is; everything but weights and random states."""

    update: int = 0
    """Updates done."""
    position: int = 0
    """Next micro-batch of the stream."""
    best_loss: float | None = None
    """Lowest validation loss."""
    best_update: int | None = None
    """When that was."""
    num_worse: int = 0
    """Validations since then."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    progress: Progress
    """How far it was."""
    weights: dict[str, Tensor]
    """What is trained, by parameter name."""
    optimizer: dict[str, Any]
    """The optimizer's state, with that of a gradient scaler and the sources of randomness."""


class RunFolder:
    """Files of one run.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def model(self) -> Path:
        """The exported model folder."""
        return self.path / MODEL_FOLDER

    def check(self, settings: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> None:
        """Check that the folder is free or holds this very run; nothing is written.

        Args:
            settings: of the run, as `config_to_dict` gives them.
            record: data hashes and counts, where they are known by now; where a checkpoint is, they must be the same.

        Raises:
            ConfigError: if the folder holds a run with other settings or data, naming what differs, or is no run's.
        """
        before = self._run()
        if before is None:
            foreign = [name for name in _OWN if (self.path / name).exists()]
            if self.path.exists() and not self.path.is_dir():
                raise ConfigError(f"{self.path}: is a file; give a folder as run.out")
            if foreign:
                raise ConfigError(
                    f"{self.path}: is not the folder of a run, but holds {foreign[0]}; choose another run.out"
                )
            return
        if not self._numbered() and "result" not in before:
            return  # nothing was trained yet: the settings may be changed
        differing = _differences(flat_settings(before.get("settings")), flat_settings(settings))
        if record is not None and "result" not in before:
            for name in _FIXED_RECORDS:
                then, now = (flat_settings(records.get(name), f"{name}.") for records in (before, record))
                differing += _differences(then, now)
        if differing:
            raise ConfigError(
                f"{self.path}: holds a run with other settings or data; choose another run.out, or go on with the same "
                "ones:\n" + "\n".join(differing)
            )

    def begin(self, settings: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Write run.json, or check that the folder's run is this one.

        Args:
            settings: see `check`.
            record: see there; stored with the settings.

        Raises:
            ConfigError: see `check`; also if the folder can't be written.
        """
        self.check(settings, record)
        if self._numbered():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            content = json.dumps({"settings": settings, **record}, indent=2, default=str)
            write_whole(self.path / RUN_FILE, [content + "\n"])
        except OSError as error:
            raise ConfigError(
                f"{self.path}: can't be written ({error.strerror or error}); choose another run.out"
            ) from error

    def _run(self) -> dict[str, Any] | None:
        """What run.json holds; None where there is none."""
        path = self.path / RUN_FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
            raise ConfigError(f"{path}: is damaged; move the folder away, or choose another run.out")
        return content

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Add the result to run.json; a run that has one is done."""
        path = self.path / RUN_FILE
        content = json.loads(path.read_text(encoding="utf-8"))
        write_whole(path, [json.dumps(content | {"result": dict(summary)}, indent=2) + "\n"])

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run."""
        result: dict[str, Any] | None = (self._run() or {}).get("result")
        return result

    def log(self, row: Mapping[str, Any], *, file: str = METRICS_FILE) -> None:
        """Append a line of JSON."""
        with (self.path / file).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")

    def forget_after(self, update: int) -> None:
        """Drop metrics and samples that a run wrote after the checkpoint it goes on from."""
        for name in (METRICS_FILE, SAMPLES_FILE):
            path = self.path / name
            if path.is_file():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                lines = [line for line in lines if _update_of(line) <= update]
                write_whole(path, (line + "\n" for line in lines))

    def metrics(self) -> list[dict[str, Any]]:
        """Every row of metrics.jsonl."""
        path = self.path / METRICS_FILE
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if _update_of(line) < _CUT_OFF]

    def save(self, name: str, progress: Progress, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> None:
        """Write a checkpoint; the one of that name before it stays until this one is whole.

        Raises:
            CheckpointError: if the disk is full or the folder can't be written; earlier checkpoints stay.
        """
        target = self.path / "checkpoints" / name
        scratch = target.with_name(f".{name}.partial")
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            save_file({key: value.contiguous() for key, value in weights.items()}, scratch / _WEIGHTS_FILE)
            torch.save(dict(optimizer), scratch / _OPTIMIZER_FILE)
            (scratch / _STATE_FILE).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            old = target.with_name(f".{name}.old")
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
                target.replace(old)
            scratch.replace(target)
            shutil.rmtree(old, ignore_errors=True)
        except (OSError, RuntimeError) as error:  # torch and safetensors report a full disk as RuntimeError
            shutil.rmtree(scratch, ignore_errors=True)
            raise CheckpointError(
                f"{target}: can't be written ({getattr(error, 'strerror', None) or error}); the checkpoints before it "
                "stay: free space and start the same command again"
            ) from error

    def prune(self, keep_last: int) -> None:
        """Remove all but the latest numbered checkpoints."""
        for path in self._numbered()[:-keep_last]:
            shutil.rmtree(path, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """Read the latest checkpoint; None where there is none.

        Raises:
            CheckpointError: if it is damaged.
        """
        numbered = self._numbered()
        return _read(numbered[-1]) if numbered else None

    def best(self) -> Checkpoint | None:
        """Read the checkpoint of the lowest validation loss; None where none was saved."""
        path = self.path / "checkpoints" / "best"
        return _read(path) if (path / _STATE_FILE).is_file() else None

    def _numbered(self) -> list[Path]:
        folders = (self.path / "checkpoints").glob("update-*")
        return sorted(path for path in folders if (path / _STATE_FILE).is_file())


def _read(path: Path) -> Checkpoint:
    try:
        progress = Progress(**json.loads((path / _STATE_FILE).read_text(encoding="utf-8")))
        weights = load_file(path / _WEIGHTS_FILE)
        optimizer = torch.load(path / _OPTIMIZER_FILE, weights_only=True)
    except Exception as error:  # damaged files raise anything
        raise CheckpointError(f"{path}: can't be read ({error}); remove it to go on from the one before") from error
    return Checkpoint(progress, weights, optimizer)


def _update_of(line: str) -> int:
    try:
        return int(json.loads(line)["update"])
    except (ValueError, KeyError, TypeError):  # cut off by a kill
        return _CUT_OFF


def flat_settings(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings into one level of dotted names."""
    if not isinstance(settings, Mapping):
        return {prefix.removesuffix("."): settings}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flat_settings(value, f"{prefix}{name}.")
    return flat


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted((before.keys() | now.keys()) - set(_FREE_SETTINGS))
    return [
        f"  {name}: {before.get(name)!r} before, {now.get(name)!r} now"
        for name in names
        if json.dumps(before.get(name), default=str) != json.dumps(now.get(name), default=str)
    ]
