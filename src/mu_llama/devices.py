"""What the machine offers: device, dtype, forked processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from mu_llama.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES: Mapping[str, str] = MappingProxyType({"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"})
"""Our short name of a dtype -> torch's; nothing else lists them."""


def available_devices() -> list[str]:
    """Name the kinds of device this machine has, the fastest first."""
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, is_present in present.items() if is_present]


def choose_device(name: str = "auto") -> torch.device:
    """Turn a device name into a device that is there.

    Args:
        name: auto (CUDA, else Apple's MPS, else CPU), cpu, cuda, cuda:1, mps.

    Raises:
        ConfigError: if the name is unknown or the machine lacks the device.
    """
    import torch

    available = available_devices()
    if name == "auto":
        return torch.device(available[0])
    kind = name.split(":")[0]
    if kind not in ("cuda", "mps", "cpu"):
        raise ConfigError(f"device {name!r} is unknown; expected auto, cpu, cuda, cuda:N or mps")
    if kind not in available:
        raise ConfigError(f"device {name!r} isn't available on this machine; available: {', '.join(available)}")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    num_devices = torch.cuda.device_count() if kind == "cuda" else 1
    if device is None or (device.index or 0) >= num_devices:
        raise ConfigError(f"device {name!r} isn't there; expected {kind} or {kind}:0 to {kind}:{num_devices - 1}")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a dtype name into a dtype.

    Args:
        name: auto, bf16, fp16 or fp32. Auto is bf16, except on MPS (fp16).
        device: where it will be used.

    Raises:
        ConfigError: if the name is unknown.
    """
    import torch

    if name == "auto":
        return torch.float16 if device.type == "mps" else torch.bfloat16
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is unknown; expected auto, {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, DTYPES[name])
    return dtype


@cache
def is_cpu_slow_at_bf16() -> bool:
    """Whether oneDNN has no kernels for bf16 on this CPU (x86 without AVX-512), or they aren't known to be fast."""
    import torch

    return torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


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
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
