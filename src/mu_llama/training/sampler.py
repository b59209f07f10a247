"""Which rows make which micro-batch, and which micro-batches make which update: functions of seed and epoch.

There is one stream of micro-batches whatever the number of processes; process r of w takes those whose position
leaves r when divided by w. So w processes see in one step what one process sees in w, and a position, a plain
integer, says everything about how far a run is.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from mu_llama.errors import ConfigError
from mu_llama.training.config import TrainConfig
from mu_llama.training.dataset import Dataset
from mu_llama.training.example import Example
from mu_llama.training.optimizer import peak_lrs, published_lr, update_factor, update_time

BatchesOf = Callable[[int], Sequence[Sequence[int]]]
"""Gives an epoch's micro-batches of row indices."""
_POOL_BATCHES = 50


@dataclass(frozen=True)
class MicroBatch:
    """One entry of the stream."""

    position: int
    """In the stream, from 0."""
    epoch: int
    """From 0."""
    index: int
    """Within the epoch."""
    num_in_epoch: int
    """Micro-batches of the epoch, those left out at its end too."""
    rows: tuple[int, ...]
    """Indices into the data."""


def sub_epoch_order(num_rows: int, *, epoch: int, seed: int, split_epoch: int, shuffle: bool = True) -> list[int]:
    """Order of the published pretraining: `split_epoch` epochs go once through the data.

    Example:
        >>> sub_epoch_order(7, epoch=1, seed=0, split_epoch=3, shuffle=False)
        [1, 4]
    """
    # compat: seeded by seed + full pass, sliced, and what doesn't divide is left out.
    order = _permutation(num_rows, seed + epoch // split_epoch) if shuffle else list(range(num_rows))
    return order[epoch % split_epoch :: split_epoch][: num_rows // split_epoch]


def distributed_order(num_rows: int, *, epoch: int, seed: int, shuffle: bool = True) -> list[int]:
    """Order of the published finetuning, that of torch's DistributedSampler: all rows, shuffled by seed + epoch."""
    return _permutation(num_rows, seed + epoch) if shuffle else list(range(num_rows))


def plain_batches(order: Sequence[int], *, batch_size: int) -> list[list[int]]:
    """Cut an order into micro-batches; the last may be smaller.

    Example:
        >>> plain_batches([4, 2, 0], batch_size=2)
        [[4, 2], [0]]
    """
    return [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]


def bucketed_batches(
    lengths: Sequence[int], *, seed: int, epoch: int, batch_size: int, max_tokens: int | None = None
) -> list[list[int]]:
    """Shuffle rows into micro-batches of about equal lengths, every row once.

    The shuffled rows are cut into pools of 50 full batches; each pool is sorted by length and cut into batches, and
    the batches are shuffled.

    Args:
        lengths: tokens of each row.
        seed: of the run.
        epoch: every epoch has its own order.
        batch_size: largest number of rows in a batch.
        max_tokens: largest number of tokens in a batch, padding included; a longer row is alone. None for no limit.

    Example:
        >>> sorted(map(sorted, bucketed_batches([9, 2, 8, 3], seed=0, epoch=0, batch_size=2)))
        [[0, 2], [1, 3]]
    """
    source = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    source.shuffle(order)
    batches: list[list[int]] = []
    for pool in plain_batches(order, batch_size=_POOL_BATCHES * batch_size):
        pool.sort(key=lambda row: lengths[row])
        batches += _filled(pool, lengths, batch_size=batch_size, max_tokens=max_tokens)
    source.shuffle(batches)
    return batches


def micro_batches(
    batches_of: BatchesOf, *, num_epochs: int, start: int = 0, per_update: int | None = None
) -> Iterator[MicroBatch]:
    """Chain the epochs into the one stream.

    Args:
        batches_of: gives an epoch's micro-batches.
        num_epochs: how many epochs there are.
        start: position to go on from.
        per_update: micro-batches in an update, over all processes, where an epoch's last ones that fill none are left
            out, as the published recipes do; None to let an update reach into the next epoch.

    Example:
        >>> [batch.rows for batch in micro_batches(lambda epoch: [[0], [1], [2]], num_epochs=2, start=2)]
        [(2,), (0,), (1,), (2,)]
    """
    position = 0
    for epoch in range(num_epochs):
        batches = batches_of(epoch)
        num_used = len(batches) if per_update is None else len(batches) // per_update * per_update
        for index in range(max(0, start - position), num_used):
            yield MicroBatch(position + index, epoch, index, len(batches), tuple(batches[index]))
        position += num_used


def _filled(rows: Sequence[int], lengths: Sequence[int], *, batch_size: int, max_tokens: int | None) -> list[list[int]]:
    """Fill batches one after the other with rows sorted by length, so that the newest row is the longest."""
    batches: list[list[int]] = []
    for row in rows:
        num_rows = len(batches[-1]) + 1 if batches else batch_size + 1
        if num_rows <= batch_size and (max_tokens is None or num_rows * lengths[row] <= max_tokens):
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _permutation(num_rows: int, seed: int) -> list[int]:
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed)).tolist()


_ENDLESS_EPOCHS = 1 << 40


@dataclass(frozen=True)
class Update:
    """The micro-batches of one optimizer step, over all processes."""

    number: int
    """From 0."""
    batches: tuple[MicroBatch, ...]
    """In order; process r of w takes those at r, r + w, ..."""
    lr_factor: float
    """Learning rate as a share of its peak."""


def row_weights(examples: Sequence[Example], datasets: Sequence[Dataset]) -> list[float] | None:
    """How often each row is to be drawn, relative to the others; None for each once an epoch."""
    if all(dataset.entry.share is None for dataset in datasets):
        return None
    share_of = {
        example.id: (dataset.entry.share or 0.0) / max(1, len(dataset.examples))
        for dataset in datasets
        for example in dataset.examples
    }
    return [share_of[example.id] for example in examples]


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
        weights: from `row_weights`.
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
        yield Update(number, batches, _lr_factor(config, number, batches[0], per_update))


def num_updates(config: TrainConfig, lengths: Sequence[int], weights: Sequence[float] | None, *, world: int) -> int:
    """How many updates the schedule has.

    Raises:
        ConfigError: if there are too few rows for a single update.
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


def _lr_factor(config: TrainConfig, number: int, first: MicroBatch, per_update: int) -> float:
    schedule = config.schedule
    peaks = peak_lrs(config, world=per_update // config.batch.accumulate)
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
    return published_lr(time, peak=1.0, minimum=minimum, warmup=warmup, total=schedule.epochs)
