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

plain_init, plain_log = AcceleratorState.__init__, loop.Trainer._step
stop_after = int(sys.argv.pop(1))


def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    plain_init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


def step(self: Any, update: Any) -> Any:
    if stop_after and update.number == stop_after:
        os._exit(7)
    return plain_log(self, update)


AcceleratorState.__init__ = init
loop.Trainer._step = step
sys.exit(main())
