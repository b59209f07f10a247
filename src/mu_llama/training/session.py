"""A training run: from its settings to its exported model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mu_llama.checkpoints.load import open_tokenizer
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.training.callbacks import NoCallback, TrainingCallback
from mu_llama.training.collate import TokenizedExamples, tokenize_examples
from mu_llama.training.config import TrainConfig
from mu_llama.training.config_file import config_to_dict
from mu_llama.training.distributed import is_sharded, make_accelerator, unsharded
from mu_llama.training.export import export_model, plot_losses
from mu_llama.training.loop import Step, Trainer
from mu_llama.training.memory import estimate_memory
from mu_llama.training.phases import phase_by_name
from mu_llama.training.run_folder import PLOT_FILE, SAMPLES_FILE, RunFolder, flat_settings
from mu_llama.training.setup import (
    PreparedTracks,
    TrainingData,
    base_parts,
    find_llama,
    fresh_parts,
    read_data,
    renamed,
    run_record,
)
from mu_llama.training.trainable import build_trainable, checkpoint_activations, export_tensors
from mu_llama.training.validation import sample_answers, validation_loss

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    model: Path
    """The exported model folder."""
    updates: int
    """Updates done."""
    loss: float
    """Training loss of the last update."""
    best_validation_loss: float | None
    """Lowest validation loss; with `run.keep_best` the exported weights are those that had it."""


class TrainingSession:
    """The state of a run while it goes on.

    Args:
        config: of the run.
        parts: what training begins with.
        data: examples and features.
        folder: where everything is written.
        accelerator: from `make_accelerator`.
        callback: called after each update, validation and round of samples.
        progress: follows the loading.
    """

    def __init__(
        self,
        config: TrainConfig,
        parts: ModelSpec,
        data: TrainingData,
        *,
        folder: RunFolder,
        accelerator: Any,
        callback: TrainingCallback,
        progress: ProgressCallback = no_progress,
    ) -> None:
        self.config, self.parts, self.data = config, parts, data
        self.folder, self.accelerator = folder, accelerator
        self.is_main: bool = accelerator.is_main_process
        self.callback: TrainingCallback = callback if self.is_main else NoCallback()
        self.rows = tokenize_examples(data.train, parts, max_tokens=config.data.max_tokens)
        self.validation_rows: TokenizedExamples | None = None
        if data.validation:
            self.validation_rows = tokenize_examples(data.validation, parts, max_tokens=config.data.max_tokens)
        self.record = run_record(data, self.rows, self.validation_rows, num_processes=accelerator.num_processes)
        self.tokenizer = open_tokenizer(parts.llama, parts.template)
        self.phase = phase_by_name(config.phase)
        if self.is_main:
            folder.begin(config_to_dict(config), self.record)
        accelerator.wait_for_everyone()
        torch.manual_seed(config.run.seed)
        self.model = build_trainable(
            parts,
            phase=self.phase,
            lora_rank=config.model.lora_rank,
            seed=config.run.seed,
            dtype=_DTYPES[config.precision.dtype],
            nf4_base=config.precision.nf4_base,
            device=accelerator.device,
            progress=progress,
        )
        if config.precision.activation_checkpointing:
            checkpoint_activations(self.model)
        self.trainer = Trainer(
            config, self.model, data=data, tokenized=self.rows, accelerator=accelerator, folder=folder
        )
        self.loss = math.nan
        self._last_saved = -1

    def run(self) -> None:
        """Train to the end of the schedule, or until the validation loss stops improving."""
        saved = self.folder.latest()
        if saved is not None:
            self.trainer.restore(saved)
            self._last_saved = saved.progress.update
        if self.is_main:
            self.folder.forget_after(self.trainer.progress.update)
        if self.config.run.trackers:
            self.accelerator.init_trackers(self.config.name, config=self._plain_settings())
        memory = estimate_memory(
            self.model, self.config, rows=self.rows.rows, num_audio_tokens=self.parts.adapter_config.num_audio_tokens
        )
        self.callback.on_start(self.record["counts"], memory, self.trainer.total, self.trainer.progress.update)
        for step in () if self._is_stopped() else self.trainer:
            self._log(step)
            if self._due(step.update, self.config.run.sample_every_steps):
                self._sample(step.update)
            if self._due(step.update, self._validate_every()) and self._validate(step.update):
                break
            if self._due(step.update, self.config.run.save_every_steps):
                self._save()
        if self._last_saved != self.trainer.progress.update:
            self._save()

    def _log(self, step: Step) -> None:
        self.loss = step.loss
        row = {
            "update": step.update, "loss": step.loss, "rate": step.lr, "gradient_norm": step.gradient_norm,
            "tokens_per_s": round(step.num_tokens / step.seconds, 1), "seconds": round(step.seconds, 4),
            "data_s": round(step.data_s, 5),
        }  # fmt: skip
        if self.is_main:
            self.folder.log(row)
        if self.config.run.trackers:
            self.accelerator.log(row, step=step.update)
        self.callback.on_step(step)

    def _plain_settings(self) -> dict[str, Any]:
        """Settings as trackers take them: one level of plain values."""
        settings = flat_settings(config_to_dict(self.config))
        return {
            name: value if isinstance(value, int | float | str | bool) else str(value)
            for name, value in settings.items()
        }

    def _due(self, update: int, every: int | None) -> bool:
        return every is not None and (update % every == 0 or update == self.trainer.total)

    def _validate_every(self) -> int | None:
        run, schedule = self.config.run, self.config.schedule
        if self.validation_rows is None:
            return None
        if run.validate_every_steps is not None:
            return run.validate_every_steps
        return run.save_every_steps if schedule.epochs is None else max(1, self.trainer.total // schedule.epochs)

    def _validate(self, update: int) -> bool:
        """Measure the validation loss and save the best weights; give whether to stop."""
        assert self.validation_rows is not None, "validation is due only with held-out data"
        progress, run = self.trainer.progress, self.config.run
        loss = validation_loss(
            self.trainer.engine,
            self.validation_rows,
            self.data.features,
            batch_size=self.config.batch.size,
            accelerator=self.accelerator,
        )
        if self.is_main:
            self.folder.log({"update": update, "validation_loss": loss})
        if self.config.run.trackers:
            self.accelerator.log({"validation_loss": loss}, step=update)
        if math.isfinite(loss) and (progress.best_loss is None or loss < progress.best_loss):
            progress.best_loss, progress.best_update, progress.num_worse = loss, update, 0
            if run.keep_best:
                self.trainer.save("best")
        else:
            progress.num_worse += 1
        self.callback.on_validation(update, loss, loss if progress.best_loss is None else progress.best_loss)
        return self._is_stopped()

    def _is_stopped(self) -> bool:
        """Whether the validation loss has not improved for too long."""
        patience = self.config.run.early_stop_patience
        return patience is not None and self.trainer.progress.num_worse >= patience

    def _sample(self, update: int) -> None:
        # Where weights are spread over processes, all of them have to take part in a forward pass.
        if self.validation_rows is None or not (self.is_main or is_sharded(self.trainer.engine)):
            return
        tracks = {example.audio: example for example in self.validation_rows.examples if example.audio is not None}
        if not tracks:
            return
        with unsharded(self.trainer.engine):
            samples = sample_answers(
                self.model,
                self.parts,
                self.tokenizer,
                examples=list(tracks.values())[: self.config.run.num_sample_tracks],
                features=self.data.features,
                questions=self.config.run.sample_questions,
                accelerator=self.accelerator,
            )
        if not self.is_main:
            return
        for sample in samples:
            self.folder.log({"update": update, **sample}, file=SAMPLES_FILE)
        self.callback.on_samples(update, samples)

    def _save(self) -> None:
        self.trainer.save(f"update-{self.trainer.progress.update:08}")
        self._last_saved = self.trainer.progress.update
        if self.is_main:
            self.folder.prune(self.config.run.keep_last)
            plot_losses(self.folder.path / PLOT_FILE, self.folder.metrics())

    def finish(self, home: Path) -> TrainingResult:
        """Export the best weights, or the last ones, and close the run."""
        progress = self.trainer.progress
        best = self.folder.best() if progress.best_update is not None else None
        if best is not None and best.progress.update != progress.update:
            self.trainer.load_weights(best.weights)
        state = self.trainer.state()
        last = [row["loss"] for row in self.folder.metrics() if "loss" in row]
        loss = last[-1] if last else self.loss
        summary = {"updates": progress.update, "loss": loss,
                   "best_validation_loss": progress.best_loss, "best_update": progress.best_update}  # fmt: skip
        if self.is_main:
            adapter, tuning = export_tensors(state, parts=self.parts, phase=self.phase)
            export_model(
                self.folder.model,
                self.parts,
                adapter=adapter,
                tuning=tuning,
                home=home,
                config=self.config,
                facts={**summary, **self.record},
            )
            plot_losses(self.folder.path / PLOT_FILE, self.folder.metrics())
            self.folder.finish(summary)
        self.accelerator.wait_for_everyone()
        if self.config.run.trackers:
            self.accelerator.end_training()
        return TrainingResult(self.folder.model, progress.update, loss, progress.best_loss)


def train(
    config: TrainConfig,
    *,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
    callback: TrainingCallback | None = None,
) -> TrainingResult:
    """Train, or go on with a run that was stopped; a finished one is left as it is.

    Args:
        config: of the run.
        home: cache folder.
        report: called with one line when a slow step starts.
        progress: follows encoding and loading, in bytes.
        callback: called after each update, validation and round of samples.

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
        return TrainingResult(folder.model, before["updates"], before["loss"], before["best_validation_loss"])
    accelerator = make_accelerator(config, folder)
    with accelerator.main_process_first():
        parts = base_parts(config, home=home, report=report)
        llama = find_llama(config, home=home, report=report) if parts is None else parts.llama
        data = read_data(config, parts, home=home, progress=progress)
    parts = fresh_parts(config, data, llama) if parts is None else renamed(parts, config)
    session = TrainingSession(
        config,
        parts,
        data,
        folder=folder,
        accelerator=accelerator,
        callback=callback or NoCallback(),
        progress=progress,
    )
    session.run()
    return session.finish(home)


def prepare_only(
    config: TrainConfig,
    *,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
) -> PreparedTracks:
    """Encode every track of a run's data into the feature cache; give counts of what is ready and what was left out.

    Raises:
        DataError: if data is missing or bad.
    """
    parts = base_parts(config, home=home, report=report)
    return PreparedTracks.of(read_data(config, parts, home=home, progress=progress))
