"""What spreads training over processes; the only door to accelerate here."""

from __future__ import annotations

import logging
from typing import Any

from mu_llama import devices
from mu_llama.errors import ConfigError
from mu_llama.training.config import TrainConfig
from mu_llama.training.run_folder import RunFolder

logger = logging.getLogger(__name__)
_SHARDED_STAGE = 3
_MIXED = {"bf16": "bf16", "fp16": "fp16", "fp32": "no"}


def make_accelerator(config: TrainConfig, folder: RunFolder) -> Any:
    """Set the engine up: one process, DDP, FSDP or DeepSpeed, as `accelerate launch` was told.

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
    """Whether DeepSpeed holds the optimiser."""
    return getattr(accelerator.state, "deepspeed_plugin", None) is not None
