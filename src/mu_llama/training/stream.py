"""The micro-batches of a run, in order, and what each update is made of."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mu_llama.errors import ConfigError
from mu_llama.training.collate import Batch, collate
from mu_llama.training.config import TrainConfig
from mu_llama.training.features import Features
from mu_llama.training.order import (
    MicroBatch,
    bucketed_batches,
    distributed_order,
    micro_batches,
    plain_batches,
    sub_epoch_order,
)
from mu_llama.training.schedule import peak_rate, published_rate, update_factor, update_time
from mu_llama.training.setup import Data, Tokenised

_ENDLESS_EPOCHS = 1 << 40


@dataclass(frozen=True)
class Update:
    """The micro-batches of one optimiser step, over all processes."""

    number: int
    """From 0."""
    batches: tuple[MicroBatch, ...]
    """In order; process r of w takes those at r, r + w, ..."""
    rate_factor: float
    """Learning rate as a share of its peak."""


def weights_of(tokenised: Tokenised, data: Data) -> list[float] | None:
    """How often each row is to be drawn, relative to the others; None for each once an epoch."""
    if all(dataset.entry.share is None for dataset in data.datasets):
        return None
    share_of = {
        example.id: (dataset.entry.share or 0.0) / max(1, len(dataset.examples))
        for dataset in data.datasets
        for example in dataset.examples
    }
    return [share_of[example.id] for example in tokenised.examples]


def epoch_batches(
    config: TrainConfig, lengths: Sequence[int], weights: Sequence[float] | None, epoch: int
) -> list[list[int]]:
    """Give an epoch's micro-batches of row indices; a pure function of its arguments."""
    batch, schedule, seed = config.batch, config.schedule, config.run.seed
    if weights is not None:
        source = random.Random(f"{seed}/{epoch}/shares")
        drawn = source.choices(range(len(lengths)), weights, k=max(1, len(lengths) // schedule.split_epoch))
        return plain_batches(drawn, batch_size=batch.size)
    if schedule.split_epoch > 1:
        order = sub_epoch_order(len(lengths), epoch=epoch, seed=seed, split_epoch=schedule.split_epoch)
        return plain_batches(order, batch_size=batch.size)
    if batch.bucketed:
        return bucketed_batches(lengths, seed=seed, epoch=epoch, batch_size=batch.size, max_tokens=batch.max_tokens)
    return plain_batches(distributed_order(len(lengths), epoch=epoch, seed=seed), batch_size=batch.size)


def updates(
    config: TrainConfig,
    lengths: Sequence[int],
    weights: Sequence[float] | None,
    *,
    world: int,
    first: int = 0,
    position: int = 0,
) -> Iterator[Update]:
    """Chain the micro-batches to updates until the schedule ends.

    Args:
        config: of the run.
        lengths: tokens of each row.
        weights: from `weights_of`.
        world: number of processes.
        first: number of the first update to give.
        position: micro-batch that it begins with.
    """
    per_update = config.batch.accumulate * world
    epochs, steps = config.schedule.epochs, config.schedule.steps
    # A schedule in epochs leaves out what fills no update at an epoch's end, as the published recipes do.
    stream = micro_batches(
        lambda epoch: epoch_batches(config, lengths, weights, epoch),
        num_epochs=epochs or _ENDLESS_EPOCHS,
        start=position,
        per_update=None if steps is not None else per_update,
    )
    for number in itertools.count(first):
        if steps is not None and number >= steps:
            return
        batches = tuple(itertools.islice(stream, per_update))
        if len(batches) < per_update:
            return
        yield Update(number, batches, _rate_factor(config, number, batches[0], per_update))


def num_updates(config: TrainConfig, lengths: Sequence[int], weights: Sequence[float] | None, *, world: int) -> int:
    """How many updates the schedule has.

    Raises:
        ConfigError: if there are too few rows for a single one.
    """
    per_update = config.batch.accumulate * world
    if config.schedule.steps is not None:
        total = config.schedule.steps if epoch_batches(config, lengths, weights, 0) else 0
    else:
        assert config.schedule.epochs is not None, "the settings ask for one of them"
        epochs = range(config.schedule.epochs)
        # An epoch's number of batches differs where they are filled up to a number of tokens.
        total = sum(len(epoch_batches(config, lengths, weights, epoch)) // per_update for epoch in epochs)
    if total == 0:
        raise ConfigError(
            f"{len(lengths)} rows are too few for an update of {per_update} x {config.batch.size} rows an epoch "
            f"(schedule.split_epoch is {config.schedule.split_epoch}): lower batch.accumulate, batch.size or "
            "schedule.split_epoch, or give schedule.steps"
        )
    return total


def peak_rates(config: TrainConfig, *, world: int) -> tuple[float, float]:
    """Peak learning rates of the adapter and of what is trained inside the LLaMA."""
    rates, batch = config.optimiser, config.batch
    common = rates.lr
    if rates.base_lr is not None:
        common = peak_rate(rates.base_lr, effective_batch=batch.size * batch.accumulate * world)
    adapter, llama = rates.adapter_lr or common, rates.lora_lr or common
    known = adapter or llama
    assert known is not None, "the settings ask for a rate"
    return adapter or known, llama or known


def _rate_factor(config: TrainConfig, number: int, first: MicroBatch, per_update: int) -> float:
    schedule = config.schedule
    peaks = peak_rates(config, world=per_update // config.batch.accumulate)
    if schedule.min_lr > min(peaks):
        raise ConfigError(f"schedule.min_lr is {schedule.min_lr:g}; expected at most the peak rate, {min(peaks):g}")
    minimum = schedule.min_lr / max(peaks)
    if schedule.steps is not None:
        return update_factor(number, warmup=schedule.warmup_steps or 0, total=schedule.steps, minimum=minimum)
    assert schedule.epochs is not None, "the settings ask for one of them"
    time = update_time(first.epoch, first.index, num_in_epoch=first.num_in_epoch, per_update=per_update)
    if schedule.warmup_epochs is None and schedule.warmup_steps:
        warmup = schedule.warmup_steps * per_update / first.num_in_epoch
    else:
        warmup = schedule.warmup_epochs or 0.0
    return published_rate(time, peak=1.0, minimum=minimum, warmup=warmup, total=schedule.epochs)


def make_batch(
    batch: MicroBatch, tokenised: Tokenised, features: Features, device: torch.device, *, seed: int | None
) -> Batch:
    """Collate the rows of a micro-batch on a device; `seed` is that of augmentation, None for none."""
    examples = [tokenised.examples[row] for row in batch.rows]
    rng = None if seed is None else random.Random(f"{seed}/{batch.position}")
    vectors = [features.of(example, rng=rng) for example in examples]
    return collate([tokenised.rows[row] for row in batch.rows], vectors).to(device)
