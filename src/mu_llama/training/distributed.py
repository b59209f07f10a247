"""Training on several processes: accelerate, and the weights that FSDP shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mu_llama import devices
from mu_llama.errors import ConfigError
from mu_llama.training.config import TrainConfig
from mu_llama.training.run_folder import RunFolder

logger = logging.getLogger(__name__)
_SHARDED_STAGE = 3
_MIXED = {"bf16": "bf16", "fp16": "fp16", "fp32": "no"}


def make_accelerator(config: TrainConfig, folder: RunFolder) -> Any:
    """Set accelerate up: one process, DDP, FSDP or DeepSpeed, as `accelerate launch` was asked for.

    Raises:
        ConfigError: if accelerate or a tracker isn't installed.
    """
    try:
        import accelerate
    except ImportError as error:
        raise ConfigError("training needs accelerate; run: pip install 'mu-llama[train]'") from error
    plugin = accelerate.utils.GradientAccumulationPlugin(config.batch.accumulate, sync_with_dataloader=False)
    try:
        accelerator = accelerate.Accelerator(
            mixed_precision=_MIXED[config.precision.dtype],
            gradient_accumulation_plugin=plugin,
            log_with=list(config.run.trackers) or None,
            project_dir=str(folder.path),
        )
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{' '.join(str(error).split())}; check run.trackers and precision.dtype; a process trains in one dtype"
        ) from error
    if config.precision.dtype == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError("precision.dtype is fp16, which needs a GPU; on a CPU take bf16 or fp32")
    if config.precision.dtype == "bf16" and accelerator.device.type == "cpu" and devices.is_cpu_slow_at_bf16():
        logger.warning("bf16 is slow on processors like this one; --set precision.dtype=fp32 can be far quicker")
    made = {str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with}
    absent = [name for name in config.run.trackers if name not in made]
    if absent:
        raise ConfigError(f"run.trackers names {absent[0]}, which isn't installed; run: pip install {absent[0]}")
    deepspeed = getattr(accelerator.state, "deepspeed_plugin", None)
    if deepspeed is not None and deepspeed.zero_stage == _SHARDED_STAGE:
        raise ConfigError(
            "DeepSpeed's stage 3 spreads weights, which can't be saved here; take stage 1 or 2, or FSDP instead"
        )
    return accelerator


def is_deepspeed(accelerator: Any) -> bool:
    """Whether DeepSpeed manages the optimizer."""
    return getattr(accelerator.state, "deepspeed_plugin", None) is not None


def is_sharded(engine: nn.Module) -> bool:
    """Whether some parameter is sharded over processes."""
    return any(isinstance(parameter, DTensor) for parameter in engine.parameters())


def gather(value: Any) -> Any:
    """Gather the tensors inside nested mappings and lists; every process must call it for the same values."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Mapping):
        return {name: gather(part) for name, part in value.items()}
    if isinstance(value, list):
        return [gather(part) for part in value]
    return value


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Shard a tensor as a parameter is; give it unchanged where the parameter isn't sharded."""
    if not isinstance(parameter, DTensor):
        return value
    device = parameter.device_mesh.device_type
    return distribute_tensor(value.to(device), parameter.device_mesh, parameter.placements)


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load an unsharded optimizer state into an optimizer whose parameters may be sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        index: {
            name: shard_like(value, parameters[index]) if value.shape == parameters[index].shape else value
            for name, value in moments.items()
        }
        for index, moments in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": sharded})


@contextmanager
def unsharded(engine: nn.Module) -> Iterator[None]:
    """Gather all weights on every process inside the block, for what runs outside the engine's forward pass."""
    shards: list[Any] = [module for module in engine.modules() if hasattr(module, "unshard")]
    for module in shards:
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
