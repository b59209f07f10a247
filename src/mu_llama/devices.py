"""What the machine offers: device, dtype, threads, forked processes."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mu_llama.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES: Mapping[str, str] = MappingProxyType({"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"})
"""Our short name of a dtype -> torch's; nothing else lists them."""


def available_devices() -> list[str]:
    """Name the kinds of device this machine has, the fastest first; without torch, the CPU."""
    if not has_gpu() or importlib.util.find_spec("torch") is None:
        return ["cpu"]
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, is_present in present.items() if is_present]


def has_gpu() -> bool:
    """Whether there is a GPU that torch may know, found out without importing torch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            cuda = ctypes.CDLL(library)
        except OSError:
            continue
        count = ctypes.c_int()
        return bool(cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value)
    return Path("/dev/kfd").exists()  # AMD's


def processor_extensions() -> list[str]:
    """Name the vector instructions of this processor that onnxruntime's kernels use, as far as the system says."""
    text = _read_text(Path("/proc/cpuinfo"))
    flags = set(text.partition("\nflags")[2].partition("\n")[0].split())
    flags |= set(text.partition("\nFeatures")[2].partition("\n")[0].split())
    names = {"avx2": "AVX2", "avx_vnni": "AVX-VNNI", "avx512f": "AVX-512", "avx512_vnni": "AVX-512-VNNI",
             "amx_int8": "AMX", "asimd": "NEON", "asimddp": "NEON dot product", "i8mm": "i8mm"}  # fmt: skip
    return [name for flag, name in names.items() if flag in flags]


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


THREADS_VARIABLE = "MU_LLAMA_THREADS"


def compute_threads(*, cores: Iterable[int] | None = None, root: Path = Path("/")) -> int:
    """Choose how many threads compute on the CPU: `MU_LLAMA_THREADS`, else as many as there are cores to run them.

    That is one for each physical core that this process may use, since two threads of one core wait for each other's
    arithmetic; at most what a container's quota of CPU time lasts for; and one in a process forked from one that had
    loaded a model.

    Args:
        cores: numbers of the logical cores that this process may use; None asks the system.
        root: the folder that holds `proc` and `sys`.

    Raises:
        ConfigError: if `MU_LLAMA_THREADS` isn't a whole number from 1 up.
    """
    chosen = os.environ.get(THREADS_VARIABLE)
    if chosen:
        if not chosen.isdecimal() or int(chosen) < 1:
            raise ConfigError(
                f"{THREADS_VARIABLE} is {chosen!r}; expected a whole number from 1 up: change or unset it"
            )
        return int(chosen)
    if _forked_after_loading:
        return 1
    if cores is None:
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    limits = [_num_physical_cores(cores, root), *map(int, _cpu_quotas(root))]
    return max(1, min(limits))


def use_chosen_threads() -> None:
    """Let torch compute on as many threads as `MU_LLAMA_THREADS` says; where it says nothing, torch's number stays.

    Raises:
        ConfigError: if `MU_LLAMA_THREADS` isn't a whole number from 1 up.
    """
    if os.environ.get(THREADS_VARIABLE) and not _forked_after_loading:
        import torch

        torch.set_num_threads(compute_threads())


def _num_physical_cores(cores: Iterable[int], root: Path) -> int:
    """Count cores, those that share their arithmetic once; where the system doesn't say which do, each counts."""
    siblings = set()
    for core in cores:
        text = _read_text(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        siblings.add(text or str(core))
    return len(siblings)


def _cpu_quotas(root: Path) -> list[float]:
    """Read how many cores' time each control group above this process may take, where one has a limit."""
    quotas = []
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # Version 2 has one tree and names no controllers.
        if not controllers:
            mount, names = root / "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup" / controllers, ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            if not mount.is_dir():
                mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        # A container may see the host's path of its group, which isn't there, and its group's files at the top.
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            numbers = " ".join(_read_text(mount / folder / name) for name in names).split()
            if len(numbers) == 2 and numbers[0].isdecimal() and numbers[1].isdecimal() and int(numbers[1]):
                quotas.append(int(numbers[0]) / int(numbers[1]))
    return quotas


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


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


_forked_after_loading = False


@cache
def _use_one_thread_when_forked() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    global _forked_after_loading
    _forked_after_loading = True
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
