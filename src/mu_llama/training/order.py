"""Which rows make which micro-batch: pure functions of seed and epoch.

There is one stream of micro-batches whatever the number of processes; process r of w takes those whose position
leaves r when divided by w. So w processes see in one step what one process sees in w, and a position, a plain
integer, says everything about how far a run is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

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


def rows_of_rank(order: Sequence[int], *, rank: int, world: int, repeat: bool) -> list[int]:
    """Deal an order to processes, the same number to each.

    Args:
        order: of an epoch.
        rank: of the process.
        world: number of processes.
        repeat: fill up with rows from the front, as torch's DistributedSampler does, instead of leaving rows out, as
            the sub-epoch sampler does.
    """
    if repeat:
        num_missing = -len(order) % world
        filled = [*order, *(order[index % len(order)] for index in range(num_missing))]
        return filled[rank::world]
    return list(order[: len(order) // world * world][rank::world])


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
        batch_size: most rows in a batch.
        max_tokens: most tokens in a batch, padding included; a row that is longer is alone. None for no limit.

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
