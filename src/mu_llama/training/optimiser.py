"""AdamW as the published recipes have it: which parameters decay, and a rate for each part of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mu_llama.errors import ConfigError

BETAS = (0.9, 0.95)
"""Decay of AdamW's moments in the published recipes."""
PEAK = "peak"
"""Key of a parameter group's highest learning rate."""


def parameter_groups(
    model: nn.Module, *, rate: float, weight_decay: float, llama_rate: float | None = None
) -> list[dict[str, Any]]:
    """Sort what is trained into AdamW's groups.

    Vectors (norms, biases) don't decay; everything else does, gates and both halves of a LoRA too.

    Args:
        model: a `MuLlama`, or a module around one; frozen parameters are left out.
        rate: peak learning rate.
        weight_decay: of what decays.
        llama_rate: peak rate of what is trained inside the LLaMA (LoRA, norms, biases); None for `rate`.

    Returns:
        Groups in a fixed order, none empty; each knows its `peak` rate, for `set_rates`.

    Raises:
        ConfigError: if everything is frozen.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = "llama" in name.split(".")
            peak = llama_rate if inside and llama_rate is not None else rate
            groups.setdefault((peak, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    if not groups:
        raise ConfigError("every parameter is frozen; expected a model from build_trainable")
    return [
        {"params": parameters, "lr": peak, PEAK: peak, "weight_decay": decay}
        for (peak, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimiser(
    model: nn.Module,
    *,
    rate: float,
    weight_decay: float = 0.05,
    llama_rate: float | None = None,
    betas: tuple[float, float] = BETAS,
) -> torch.optim.AdamW:
    """Make AdamW over `parameter_groups`, whose arguments these are.

    Args:
        model: see `parameter_groups`.
        rate: see there.
        weight_decay: see there.
        llama_rate: see there.
        betas: decay of the two moments.
    """
    groups = parameter_groups(model, rate=rate, weight_decay=weight_decay, llama_rate=llama_rate)
    return torch.optim.AdamW(groups, betas=betas)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to so much of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group[PEAK] * factor
