"""The learning rate as a function of how far a run is."""

from __future__ import annotations

import math

_REFERENCE_BATCH = 256


def peak_rate(base_rate: float, *, effective_batch: int) -> float:
    """Scale a recipe's base rate to a batch: `base * effective_batch / 256`.

    Args:
        base_rate: for 256 rows an update.
        effective_batch: rows an update, over all processes and accumulated micro-batches.

    Example:
        >>> peak_rate(1e-3, effective_batch=32)
        0.000125
    """
    return base_rate * effective_batch / _REFERENCE_BATCH


def update_time(epoch: int, index: int, *, num_in_epoch: int, per_update: int) -> float:
    """Time, in epochs, at the first micro-batch of the update that a micro-batch belongs to.

    Args:
        epoch: from 0.
        index: of the micro-batch in its epoch.
        num_in_epoch: micro-batches of the epoch.
        per_update: micro-batches in an update.

    Example:
        >>> update_time(1, 3, num_in_epoch=8, per_update=2)
        1.25
    """
    return epoch + (index - index % per_update) / num_in_epoch


def published_rate(time: float, *, peak: float, minimum: float, warmup: float, total: float) -> float:
    """Learning rate of the published recipes: up from 0, then half a cosine down to the minimum.

    Args:
        time: from `update_time`.
        peak: highest rate, from `peak_rate`.
        minimum: last rate.
        warmup: epochs on the way up.
        total: epochs in all.

    Example:
        >>> published_rate(0.5, peak=1e-3, minimum=0.0, warmup=1, total=20)
        0.0005
    """
    # compat: the first update of all has a rate of 0 and changes nothing.
    if time < warmup:
        return peak * time / warmup
    return minimum + (peak - minimum) * _half_cosine(time - warmup, total - warmup)


def update_factor(update: int, *, warmup: int, total: int, minimum: float = 0.0) -> float:
    """Factor on the peak rates by updates: up from 1/warmup to 1, then half a cosine towards the minimum.

    Args:
        update: from 0.
        warmup: updates on the way up.
        total: updates in all.
        minimum: factor that the cosine ends in, after the last update.

    Example:
        >>> [update_factor(update, warmup=2, total=4) for update in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    if update < warmup:
        return (update + 1) / warmup
    return minimum + (1.0 - minimum) * _half_cosine(update - warmup, total - warmup)


def _half_cosine(done: float, length: float) -> float:
    """From 1 at the start to 0 at the end and after it."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done / length))) if length > 0 else 1.0
