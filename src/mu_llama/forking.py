"""Lets a loaded model compute in processes that are forked from its own, as web servers and data loaders do."""

from __future__ import annotations

import os
from functools import cache

import torch

from mu_llama.errors import ConfigError


class LoadedProcess:
    """The process in which a model was loaded. From now on, processes forked from it compute on one thread.

    OpenMP's threads don't exist in a forked process, and torch would wait for them for ever.

    Args:
        device: where the model is, e.g. `cuda:0`.
    """

    def __init__(self, device: str) -> None:
        self._process_id = os.getpid()
        self._device = device
        _use_one_thread_when_forked()

    def check(self) -> None:
        """Refuse to compute in a forked process on a device that only works in the process that began with it.

        Raises:
            ConfigError: if so.
        """
        if self._device != "cpu" and os.getpid() != self._process_id:
            raise ConfigError(
                f"the model was loaded on {self._device} before this process was forked, and can't be used in it; load "
                "it in this process, or start processes by multiprocessing's 'spawn'"
            )


@cache
def _use_one_thread_when_forked() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
