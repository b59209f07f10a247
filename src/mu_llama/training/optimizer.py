"""AdamW and the learning-rate schedule, as the published recipes have them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from mu_llama.errors import ConfigError
from mu_llama.training.config import TrainConfig

BETAS = (0.9, 0.95)
"""Decay of AdamW's moments in the published recipes."""
PEAK = "peak"
"""Key of a parameter group's highest learning rate."""


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float, llama_lr: float | None = None
) -> list[dict[str, Any]]:
    """Sort what is trained into AdamW's groups.

    Vectors (norms, biases) don't decay; everything else does, gates and both halves of a LoRA too.

    Args:
        model: a `MuLlama`, or a module around one; frozen parameters are left out.
        lr: peak learning rate.
        weight_decay: of what decays.
        llama_lr: peak learning rate of what is trained inside the LLaMA (LoRA, norms, biases); None for `lr`.

    Returns:
        Groups in a fixed order, none empty; each with its `peak` learning rate, for `set_lrs`.

    Raises:
        ConfigError: if everything is frozen.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = "llama" in name.split(".")
            peak = llama_lr if inside and llama_lr is not None else lr
            groups.setdefault((peak, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    if not groups:
        raise ConfigError("every parameter is frozen; expected a model from build_trainable")
    return [
        {"params": parameters, "lr": peak, PEAK: peak, "weight_decay": decay}
        for (peak, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.05,
    llama_lr: float | None = None,
    betas: tuple[float, float] = BETAS,
) -> torch.optim.AdamW:
    """Make AdamW over `parameter_groups`, whose arguments these are.

    Args:
        model: see `parameter_groups`.
        lr: see there.
        weight_decay: see there.
        llama_lr: see there.
        betas: decay of the two moments.
    """
    groups = parameter_groups(model, lr=lr, weight_decay=weight_decay, llama_lr=llama_lr)
    return torch.optim.AdamW(groups, betas=betas)


def set_lrs(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group[PEAK] * factor


_REFERENCE_BATCH = 256


def peak_lr(base_lr: float, *, effective_batch: int) -> float:
    """Scale a recipe's base learning rate to a batch: `base * effective_batch / 256`.

    Args:
        base_lr: for 256 rows an update.
        effective_batch: rows an update, over all processes and accumulated micro-batches.

    Example:
        >>> peak_lr(1e-3, effective_batch=32)
        0.000125
    """
    return base_lr * effective_batch / _REFERENCE_BATCH


def peak_lrs(config: TrainConfig, *, world: int) -> tuple[float, float]:
    """Peak learning rates of the adapter and of what is trained inside the LLaMA."""
    optimizer, batch = config.optimiser, config.batch
    common = optimizer.lr
    if optimizer.base_lr is not None:
        common = peak_lr(optimizer.base_lr, effective_batch=batch.size * batch.accumulate * world)
    adapter, llama = optimizer.adapter_lr or common, optimizer.lora_lr or common
    fallback = adapter or llama
    assert fallback is not None, "the settings ask for a learning rate"
    return adapter or fallback, llama or fallback


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


def published_lr(time: float, *, peak: float, minimum: float, warmup: float, total: float) -> float:
    """Learning rate of the published recipes: up from 0, then half a cosine down to the minimum.

    Args:
        time: from `update_time`.
        peak: highest learning rate, from `peak_lr`.
        minimum: last learning rate.
        warmup: epochs on the way up.
        total: epochs in all.

    Example:
        >>> published_lr(0.5, peak=1e-3, minimum=0.0, warmup=1, total=20)
        0.0005
    """
    # compat: the first update of all has a learning rate of 0 and changes nothing.
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
