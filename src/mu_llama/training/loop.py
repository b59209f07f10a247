"""The training loop."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mu_llama.engine.torch.llama import MuLlama
from mu_llama.errors import ConfigError, MuLlamaError
from mu_llama.training.collate import AnswerLoss, TokenizedExamples, make_batch
from mu_llama.training.config import TrainConfig
from mu_llama.training.distributed import gather, is_deepspeed, load_optimizer_state, shard_like
from mu_llama.training.optimizer import build_optimizer, peak_lrs, set_lrs
from mu_llama.training.phases import plain_name
from mu_llama.training.run_folder import Checkpoint, Progress, RunFolder
from mu_llama.training.sampler import Update, num_updates, row_weights, updates
from mu_llama.training.setup import TrainingData


class TrainingError(MuLlamaError, RuntimeError):
    """A run that can't go on: a loss that isn't a number."""


@dataclass(frozen=True)
class Step:
    """What one update gave."""

    update: int
    """Updates done, from 1."""
    loss: float
    """Mean over its micro-batches, before the update."""
    lr: float
    """Highest learning rate."""
    gradient_norm: float
    """Before clipping."""
    num_tokens: int
    """Tokens of its micro-batches on this process, padding left out."""
    seconds: float
    """Wall time."""
    data_s: float
    """Of that, waiting for data."""


class Trainer:
    """Steps through a run's updates; iterate to train.

    Args:
        config: of the run.
        model: as `build_trainable` makes it.
        data: examples and features.
        tokenized: the rows to train on.
        accelerator: from `make_accelerator`.
        folder: where a loss that isn't a number is written.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: MuLlama,
        *,
        data: TrainingData,
        tokenized: TokenizedExamples,
        accelerator: Any,
        folder: RunFolder,
    ) -> None:
        self.config, self.model, self.accelerator = config, model, accelerator
        self._features = data.augmented or data.features
        self._tokenised, self._folder = tokenized, folder
        self.progress = Progress()
        self._lengths = [len(row.ids) for row in tokenized.rows]
        self._weights = row_weights(tokenized.examples, data.datasets)
        adapter_lr, llama_lr = peak_lrs(config, world=accelerator.num_processes)
        engine = AnswerLoss(model).train()
        optimizer = build_optimizer(
            engine,
            lr=adapter_lr,
            llama_lr=llama_lr,
            weight_decay=config.optimiser.weight_decay,
            betas=config.optimiser.betas,
        )
        self.engine, self.optimizer = accelerator.prepare(engine, optimizer)
        self._stepping = torch.compile(self.engine) if config.precision.compile else self.engine
        self.total = num_updates(config, self._lengths, self._weights, world=accelerator.num_processes)

    def __iter__(self) -> Iterator[Step]:
        """Train; yields after each update."""
        stream = updates(
            self.config,
            self._lengths,
            self._weights,
            world=self.accelerator.num_processes,
            first=self.progress.update,
            position=self.progress.position,
        )
        for update in stream:
            step = self._step(update)
            self.progress.update = update.number + 1
            self.progress.position = update.batches[-1].position + 1
            yield step

    def _step(self, update: Update) -> Step:
        start, data_s, num_tokens = time.perf_counter(), 0.0, 0
        set_lrs(self.optimizer, update.lr_factor)
        micro_batches = update.batches[self.accelerator.process_index :: self.accelerator.num_processes]
        total = torch.zeros((), device=self.accelerator.device)
        for micro in micro_batches:
            before = time.perf_counter()
            batch = make_batch(
                micro, self._tokenised, self._features, self.accelerator.device, seed=self.config.run.seed
            )
            data_s += time.perf_counter() - before
            num_tokens += int(batch.mask.sum())
            with self.accelerator.accumulate(self.engine):
                loss = self._stepping(batch)
                self.accelerator.backward(loss)
            total += loss.detach() / len(micro_batches)
        mean = float(self.accelerator.reduce(total, reduction="mean"))
        if not math.isfinite(mean):
            self._stop_at(update, mean)
        norm = self._clip()
        if not math.isfinite(norm) and self.accelerator.scaler is None:  # a scaler leaves such an update out
            self._stop_at(update, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        return Step(update.number + 1, mean, lr, norm, num_tokens, seconds=time.perf_counter() - start, data_s=data_s)

    def _clip(self) -> float:
        limit = self.config.optimiser.clip_norm
        trained = [parameter for parameter in self.engine.parameters() if parameter.requires_grad]
        norm = self.accelerator.clip_grad_norm_(trained, math.inf if limit is None else limit)
        return float(norm)

    def _stop_at(self, update: Update, loss: float) -> None:
        ids = [self._tokenised.examples[row].id for batch in update.batches for row in batch.rows]
        if self.accelerator.is_main_process:
            self._folder.log({"update": update.number + 1, "loss": str(loss), "ids": ids}, file="not-finite.jsonl")
        raise TrainingError(
            f"the loss or gradient of update {update.number + 1} is {loss}; the ids of its rows are in "
            f"{self._folder.path / 'not-finite.jsonl'}: lower the learning rate or set optimiser.clip_norm, in a "
            "new run.out"
        )

    def state(self) -> dict[str, Tensor]:
        """Everything the model holds, on the CPU; on the main process alone where weights are sharded."""
        state: Mapping[str, Tensor] = self.accelerator.get_state_dict(self.engine)
        return {name.removeprefix("model."): value.detach().cpu() for name, value in state.items()}

    def trained(self) -> dict[str, Tensor]:
        """Copies of what is trained, on the CPU, under plain names."""
        return {
            plain_name(name): gather(parameter.detach()).cpu().clone()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def save(self, name: str) -> None:
        """Write a checkpoint, on the main process."""
        weights, optimizer = self.trained(), self._optimizer_state()
        if self.accelerator.is_main_process:
            self._folder.save(name, self.progress, weights, optimizer)
        self.accelerator.wait_for_everyone()

    def _optimizer_state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            # DeepSpeed's moments lie in its own objects, spread over processes.
            "optimiser": None if is_deepspeed(self.accelerator) else gather(self.optimizer.state_dict()),
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": torch.get_rng_state(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: if it is of another phase or architecture, naming what differs; or under DeepSpeed.
        """
        if checkpoint.optimizer["optimiser"] is None or is_deepspeed(self.accelerator):
            raise ConfigError(
                f"{self._folder.path}: DeepSpeed keeps the moments of its runs, so none can go on under it or from its "
                "checkpoints; give the run a new folder (run.out), or train with FSDP"
            )
        self.load_weights(checkpoint.weights)
        load_optimizer_state(self.optimizer, checkpoint.optimizer["optimiser"])
        if checkpoint.optimizer["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.optimizer["scaler"])
        torch.set_rng_state(checkpoint.optimizer["random"])
        self.progress = dataclasses.replace(checkpoint.progress)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy a checkpoint's weights into the model."""
        parameters = {plain_name(name): value for name, value in self.model.named_parameters() if value.requires_grad}
        odd = sorted(parameters.keys() ^ weights.keys()) or sorted(
            name for name in parameters if parameters[name].shape != weights[name].shape
        )
        if odd:
            raise ConfigError(
                f"{self._folder.path}: its checkpoint is of another phase or architecture; differs in {odd[0]!r}"
                + (f" and {len(odd) - 1} more" if len(odd) > 1 else "")
            )
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(shard_like(weights[name], value))
