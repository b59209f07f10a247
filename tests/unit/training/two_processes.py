"""Train with two gloo processes, without a GPU: first with DDP, then with FSDP, stopped in between.

    torchrun --nproc_per_node=2 -m tests.unit.training.two_processes DDP_CONFIG FSDP_CONFIG HOME

FSDP's settings are in the environment as `accelerate launch` puts them there, but for the switch `ACCELERATE_USE_FSDP`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from accelerate.state import AcceleratorState, DistributedType, PartialState

from mu_llama.training.config import TrainConfig
from mu_llama.training.config_file import load_config
from mu_llama.training.distributed import is_sharded
from mu_llama.training.loop import Trainer
from tests.unit.training.runs import Stop, start

STOP_AT = 3
"""The number, from 0, of the update before which FSDP's run is stopped on both processes."""


def pretend_gpus() -> Any:
    """Have accelerate, which refuses FSDP on CPUs, take several CPU processes as FSDP."""
    plain = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    return mock.patch.object(AcceleratorState, "__init__", init)


def stop(config: TrainConfig, home: Path) -> None:
    """Train until `STOP_AT`."""
    plain = Trainer._step

    def step(self: Any, update: Any) -> Any:
        assert is_sharded(self.engine), "FSDP is on"
        if update.number == STOP_AT:
            raise Stop
        return plain(self, update)

    with mock.patch.object(Trainer, "_step", step):
        try:
            start(config, home)
        except Stop:
            return
    raise AssertionError("the run was to be stopped")


def main(ddp: str, fsdp: str, home: Path) -> None:
    """Train both runs."""
    start(load_config(ddp), home)
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    config = load_config(fsdp)
    assert config.run.out is not None
    with pretend_gpus():
        stop(config, home)
        assert not (config.run.out / "model").exists()
        start(config, home)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
