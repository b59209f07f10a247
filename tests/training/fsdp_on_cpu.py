"""Train with accelerate's FSDP without a GPU: told that gloo processes are GPUs, for accelerate refuses it on CPUs.

Arguments are those of `python -m mu_llama.training`, after the number of updates to stop after (0 for none).
"""

from __future__ import annotations

import os
import sys
from typing import Any

from accelerate.state import AcceleratorState, DistributedType, PartialState

from mu_llama.training import loop
from mu_llama.training.__main__ import main


def pretend_gpus() -> None:
    """Take what accelerate takes for several CPUs as FSDP."""
    plain = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = init


def die_after(num_updates: int) -> None:
    """End the process hard before the next update."""
    plain = loop.Trainer._step

    def step(self: Any, update: Any) -> Any:
        if update.number == num_updates:
            os._exit(7)
        return plain(self, update)

    loop.Trainer._step = step  # type: ignore[method-assign]


if __name__ == "__main__":
    pretend_gpus()
    if num_updates := int(sys.argv.pop(1)):
        die_after(num_updates)
    sys.exit(main())
