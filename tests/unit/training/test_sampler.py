"""Orders: every row once, the same again for a seed, and the same work for any number of processes."""

from __future__ import annotations

import itertools
import random

import pytest
from torch.utils.data import DistributedSampler

from mu_llama.training.sampler import (
    bucketed_batches,
    distributed_order,
    micro_batches,
    plain_batches,
    sub_epoch_order,
)

_SOURCE = random.Random(0)
LENGTHS = [_SOURCE.randint(5, 300) for _ in range(2003)]


@pytest.mark.parametrize("max_tokens", [None, 1500])
def test_buckets_hold_every_row_once(max_tokens: int | None) -> None:
    batches = bucketed_batches(LENGTHS, seed=1, epoch=0, batch_size=8, max_tokens=max_tokens)
    assert sorted(itertools.chain(*batches)) == list(range(len(LENGTHS)))
    assert max(map(len, batches)) == 8
    if max_tokens is None:
        assert sum(len(batch) < 8 for batch in batches) == 1
    else:
        assert all(len(batch) * max(LENGTHS[row] for row in batch) <= max_tokens for batch in batches)


def test_buckets_hold_rows_of_like_length() -> None:
    def padding(batches: list[list[int]]) -> float:
        padded = sum(len(batch) * max(LENGTHS[row] for row in batch) for batch in batches)
        return padded / sum(LENGTHS) - 1

    assert padding(bucketed_batches(LENGTHS, seed=1, epoch=0, batch_size=8)) < 0.03
    assert padding(plain_batches(distributed_order(len(LENGTHS), epoch=0, seed=1), batch_size=8)) > 0.5


def test_buckets_are_decided_by_seed_and_epoch() -> None:
    def batches(seed: int, epoch: int) -> list[list[int]]:
        return bucketed_batches(LENGTHS, seed=seed, epoch=epoch, batch_size=4)

    assert batches(1, 2) == batches(1, 2)
    assert len({str(batches(seed, epoch)) for seed, epoch in itertools.product(range(3), range(3))}) == 9
    longest = [max(LENGTHS[row] for row in batch) for batch in batches(0, 0)]
    assert longest != sorted(longest)


def test_a_row_above_the_limit_is_alone() -> None:
    batches = bucketed_batches([10, 500, 10], seed=0, epoch=0, batch_size=9, max_tokens=100)
    assert sorted(map(sorted, batches)) == [[0, 2], [1]]
    assert bucketed_batches([], seed=0, epoch=0, batch_size=2) == []


def epochs(epoch: int) -> list[list[int]]:
    return bucketed_batches(LENGTHS[:23], seed=5, epoch=epoch, batch_size=3)


@pytest.mark.parametrize("per_update", [None, 3])
def test_the_stream_goes_on_from_any_position(per_update: int | None) -> None:
    whole = list(micro_batches(epochs, num_epochs=3, per_update=per_update))
    assert [batch.position for batch in whole] == list(range(len(whole)))
    assert len(whole) == (24 if per_update is None else 18)
    for start in (0, 1, 7, 8, 9, len(whole) - 1, len(whole), len(whole) + 5):
        assert list(micro_batches(epochs, num_epochs=3, start=start, per_update=per_update)) == whole[start:]


def test_two_processes_do_what_one_does_with_twice_the_accumulation() -> None:
    accumulate, world = 2, 2
    one = list(micro_batches(epochs, num_epochs=3))
    alone = [one[start : start + accumulate * world] for start in range(0, len(one), accumulate * world)]
    ranks = [[batch for batch in one if batch.position % world == rank] for rank in range(world)]
    for update, expected in enumerate(alone):
        shares = [rank[update * accumulate : (update + 1) * accumulate] for rank in ranks]
        assert sorted(itertools.chain(*shares), key=lambda batch: batch.position) == expected


@pytest.mark.parametrize("num_rows", [1, 7, 8, 23])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_plain_order_is_that_of_torch(num_rows: int, world: int) -> None:
    for rank, shuffle, epoch in itertools.product(range(world), (True, False), (0, 3)):
        sampler = DistributedSampler(range(num_rows), world, rank, shuffle=shuffle, seed=4)
        sampler.set_epoch(epoch)
        order = distributed_order(num_rows, epoch=epoch, seed=4, shuffle=shuffle)
        filled = [order[index % num_rows] for index in range(-(-num_rows // world) * world)]
        assert filled[rank::world] == list(sampler)


def test_sub_epochs_together_are_the_data() -> None:
    parts = [sub_epoch_order(40, epoch=epoch, seed=2, split_epoch=8) for epoch in range(16)]
    assert sorted(itertools.chain(*parts[:8])) == list(range(40))
    assert sorted(itertools.chain(*parts[8:])) == list(range(40))
    assert parts[:8] != parts[8:]
