"""Train by settings: read, prepare, then a session, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.training.callbacks import Silent, Watcher
from mu_llama.training.config import TrainConfig
from mu_llama.training.config_file import config_to_dict
from mu_llama.training.engine import make_accelerator
from mu_llama.training.run_folder import RunFolder
from mu_llama.training.session import Result, Session
from mu_llama.training.setup import base_parts, find_llama, fresh_parts, read_data, renamed


def train(
    config: TrainConfig,
    *,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
    watcher: Watcher | None = None,
) -> Result:
    """Train, or go on with a run that was stopped; a finished one is left as it is.

    Args:
        config: of the run.
        home: cache folder.
        report: told what takes long.
        progress: follows hearing and loading, in bytes.
        watcher: told how it goes.

    Raises:
        ConfigError: if settings, weights or the run folder don't fit together.
        DataError: if data is missing or bad.
        TrainingError: if the loss stops being a number.
        CheckpointError: if weights are damaged or a checkpoint can't be written.
    """
    folder = RunFolder(config.run.out or Path("runs") / config.name)
    folder.check(config_to_dict(config))
    before = folder.result()
    if before is not None:
        return Result(folder.model, before["updates"], before["loss"], before["best_validation_loss"])
    accelerator = make_accelerator(config, folder)
    with accelerator.main_process_first():
        parts = base_parts(config, home=home, report=report)
        llama = find_llama(config, home=home, report=report) if parts is None else parts.llama
        data = read_data(config, parts, home=home, progress=progress)
    parts = fresh_parts(config, data, llama) if parts is None else renamed(parts, config)
    session = Session(
        config, parts, data, folder=folder, accelerator=accelerator, watcher=watcher or Silent(), progress=progress
    )
    session.go()
    return session.end(home)


def prepare_only(
    config: TrainConfig,
    *,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
) -> int:
    """Hear every track of a run's data, so that training finds its features; gives the number of tracks.

    Raises:
        DataError: if data is missing or bad.
    """
    parts = base_parts(config, home=home, report=report)
    rows = read_data(config, parts, home=home, progress=progress).features.rows
    return sum(audio is not None for audio in rows)
