"""How many threads compute: read off a made-up machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mu_llama import devices
from mu_llama.devices import compute_threads
from mu_llama.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MU_LLAMA_THREADS", raising=False)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


def siblings(*groups: str) -> dict[str, str]:
    """The files that say which logical cores share a physical one; a group is such as `0,4`."""
    name = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return {name.format(core): group for group in groups for core in group.split(",")}


def test_each_physical_core_counts_once(tmp_path: Path) -> None:
    root = machine(tmp_path, siblings("0,4", "1,5", "2,6", "3,7"))
    assert compute_threads(cores=range(8), root=root) == 4
    assert compute_threads(cores={0, 4, 1}, root=root) == 2  # of those that this process may use
    assert compute_threads(cores={6}, root=root) == 1


def test_where_nothing_is_known_each_core_counts(tmp_path: Path) -> None:
    assert compute_threads(cores=range(6), root=tmp_path) == 6


def test_the_system_is_asked_for_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5}, raising=False)
    assert compute_threads(root=tmp_path) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert compute_threads(root=tmp_path) == 1


V2, V1 = "0::/user/job", "5:memory:/a\n3:cpu,cpuacct:/docker/abc\n0::/"
QUOTAS = {
    "version 2, own group": ({"sys/fs/cgroup/user/job/cpu.max": "300000 100000"}, V2, 3),
    "version 2, a group above": (
        {"sys/fs/cgroup/user/job/cpu.max": "max 100000", "sys/fs/cgroup/user/cpu.max": "250000 100000"}, V2, 2,
    ),
    "version 2, in a container": ({"sys/fs/cgroup/cpu.max": "50000 100000"}, "0::/", 1),
    "version 2, no limit": ({"sys/fs/cgroup/user/job/cpu.max": "max 100000"}, V2, 8),
    "version 2, more than there is": ({"sys/fs/cgroup/user/job/cpu.max": "6400000 100000"}, V2, 8),
    "version 1, own group": (
        {
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "50000",
        }, V1, 4,
    ),
    "version 1, in a container": (
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, V1, 1,
    ),
    "version 1, no limit": (
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, V1, 8,
    ),
    "unreadable numbers": ({"sys/fs/cgroup/user/job/cpu.max": "100000 0"}, V2 + "\nnonsense", 8),
}  # fmt: skip


@pytest.mark.parametrize(("files", "groups", "expected"), QUOTAS.values(), ids=QUOTAS)
def test_a_containers_quota_is_the_limit(tmp_path: Path, files: dict[str, str], groups: str, expected: int) -> None:
    root = machine(tmp_path, {**files, "proc/self/cgroup": groups})
    assert compute_threads(cores=range(8), root=root) == expected


def test_the_variable_overrules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MU_LLAMA_THREADS", "12")
    assert compute_threads(cores=range(2), root=tmp_path) == 12
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("MU_LLAMA_THREADS", wrong)
        with pytest.raises(ConfigError, match=f"MU_LLAMA_THREADS is '{wrong}'; expected a whole number from 1 up"):
            compute_threads()


def test_a_process_forked_after_loading_computes_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_forked_after_loading", True)
    assert compute_threads(cores=range(8), root=tmp_path) == 1
