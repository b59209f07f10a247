"""Weights that FSDP spreads over processes: gathering them, and putting whole ones back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(engine: nn.Module) -> bool:
    """Whether some parameter is spread over processes."""
    return any(isinstance(parameter, DTensor) for parameter in engine.parameters())


def whole(value: Any) -> Any:
    """Gather the tensors inside nested mappings and lists; every process must call it for the same values."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Mapping):
        return {name: whole(part) for name, part in value.items()}
    if isinstance(value, list):
        return [whole(part) for part in value]
    return value


def spread_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Spread a whole tensor over the processes as a parameter is; give it as it is where the parameter isn't."""
    if not isinstance(parameter, DTensor):
        return value
    device = parameter.device_mesh.device_type
    return distribute_tensor(value.to(device), parameter.device_mesh, parameter.placements)


def load_moments(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an optimiser, whole in `state`, into one whose parameters may be spread."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    spread = {
        index: {
            name: spread_like(value, parameters[index]) if value.shape == parameters[index].shape else value
            for name, value in moments.items()
        }
        for index, moments in state["state"].items()
    }
    optimiser.load_state_dict({**state, "state": spread})


@contextmanager
def gathered(engine: nn.Module) -> Iterator[None]:
    """Hold all weights on every process for a while, for what runs outside the engine's own forward pass."""
    shards: list[Any] = [module for module in engine.modules() if hasattr(module, "unshard")]
    for module in shards:
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
