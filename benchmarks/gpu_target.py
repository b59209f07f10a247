"""The device that `benchmarks.gpu_check` checks, its clock and its memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Figures = dict[str, float | str]
"""What a part measured; units are in the names."""
GIB = 2**30


class PartSkipped(Exception):  # noqa: N818 - no error
    """A part that can't run here; says why."""


class PartFailed(Exception):  # noqa: N818 - beside PartSkipped
    """A part that ran and found something wrong."""


@dataclass(frozen=True)
class Target:
    """What the parts run on."""

    name: str
    """`cuda` or `cpu`."""
    tiny: bool
    """Small shapes, to try the check itself."""

    @property
    def device(self) -> torch.device:
        """The device itself; of several GPUs the first, which is accelerate's too."""
        return torch.device("cuda", 0) if self.name == "cuda" else torch.device(self.name)

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Wait until the device has computed everything that it was given."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object]) -> float:
        """Time one call, from an idle device to an idle device."""
        self.synchronize()
        start = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - start

    def peak_gib(self) -> float:
        """Most memory that was used since the process began: of the GPU, or on a CPU of the process."""
        if self.is_cuda:
            return torch.cuda.max_memory_allocated(self.device) / GIB
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def require(self, num_bytes: int) -> None:
        """Skip the part if the GPU hasn't so much free memory."""
        free = torch.cuda.mem_get_info(self.device)[0] if self.is_cuda else num_bytes
        if free < num_bytes:
            raise PartSkipped(f"needs about {num_bytes / GIB:.1f} GiB; {free / GIB:.1f} GiB of the GPU are free")


def bandwidth_of(target: Target) -> float:
    """Bytes a second, read and written, of a big copy or a big sum, whichever is faster; leaves no memory taken."""
    num_bytes = 2**23 if target.tiny else 2 * GIB
    target.require(3 * num_bytes)
    rate = _bandwidth(target, num_bytes)
    if target.is_cuda:  # so that the peak is that of what comes next
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(target.device)
    return rate


def _bandwidth(target: Target, num_bytes: int) -> float:
    source = torch.ones(num_bytes // 4, device=target.device)
    copied = torch.empty_like(source)
    rates = []
    for run, moved in ((lambda: copied.copy_(source), 2 * num_bytes), (source.sum, num_bytes)):
        times = [target.seconds(run) for _ in range(8)][2:]
        rates.append(moved / statistics.median(times))
    return max(rates)
