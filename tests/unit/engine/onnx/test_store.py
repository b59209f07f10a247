"""Graphs in the cache: built once, whole or not at all."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from mu_llama.engine.onnx import store
from mu_llama.engine.onnx.description import GraphOptions
from mu_llama.engine.onnx.store import graph_folder, is_whole, provide_graph
from mu_llama.errors import MuLlamaError

IDENTITY = {"llama": "abc"}
OPTIONS = GraphOptions()


class Builds:
    """Writes three files and counts how often."""

    def __init__(self) -> None:
        self.num = 0

    def __call__(self, folder: Path) -> None:
        self.num += 1
        (folder / "model.onnx").write_bytes(b"graph")
        (folder / "weights.bin").write_bytes(bytes(range(256)) * 8)
        (folder / "graph.json").write_bytes(b"{}")


def no_build(folder: Path) -> None:
    raise AssertionError("is there already")


def test_builds_once(tmp_path: Path) -> None:
    builds = Builds()
    folder = provide_graph(tmp_path / "graphs", IDENTITY, OPTIONS, builds)
    assert provide_graph(tmp_path / "graphs", IDENTITY, OPTIONS, no_build) == folder
    assert builds.num == 1
    assert (folder / "weights.bin").stat().st_size == 2048
    assert {path.name for path in (tmp_path / "graphs").iterdir()} <= {folder.name, f"{folder.name}.lock"}


def test_name_depends_on_weights_options_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        graph_folder(tmp_path, IDENTITY, OPTIONS),
        graph_folder(tmp_path, {"llama": "abd"}, OPTIONS),
        graph_folder(tmp_path, IDENTITY, GraphOptions(block_size=16)),
        graph_folder(tmp_path, IDENTITY, GraphOptions(num_conditioned_layers=2)),
    }
    monkeypatch.setattr(store, "GRAPH_VERSION", 999)
    names.add(graph_folder(tmp_path, IDENTITY, OPTIONS))
    assert len(names) == 5
    assert graph_folder(tmp_path, {"a": 1, "b": 2}, OPTIONS) == graph_folder(tmp_path, {"b": 2, "a": 1}, OPTIONS)


def _truncate(folder: Path) -> None:
    with (folder / "weights.bin").open("rb+") as file:
        file.truncate(100)


def _flip(folder: Path) -> None:
    path = folder / "weights.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def _no_weights(folder: Path) -> None:
    (folder / "weights.bin").unlink()


def _no_manifest(folder: Path) -> None:
    (folder / store.MANIFEST_FILE).unlink()


def _damaged_manifest(folder: Path) -> None:
    (folder / store.MANIFEST_FILE).write_text('{"version": 1, "files": 3}')


def _old(folder: Path) -> None:
    path = folder / store.MANIFEST_FILE
    path.write_text(path.read_text().replace('"version": 1', '"version": 0'))


@pytest.mark.parametrize("damage", [_truncate, _flip, _no_weights, _no_manifest, _damaged_manifest, _old])
def test_damaged_and_old_graphs_are_built_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    builds, reports = Builds(), list[str]()
    folder = provide_graph(tmp_path, IDENTITY, OPTIONS, builds)
    damage(folder)
    assert not is_whole(folder)
    assert provide_graph(tmp_path, IDENTITY, OPTIONS, builds, report=reports.append) == folder
    assert builds.num == 2
    assert is_whole(folder)
    assert "built again" in reports[0]


def test_a_copied_graph_is_used(tmp_path: Path) -> None:
    folder = provide_graph(tmp_path, IDENTITY, OPTIONS, Builds())
    os.utime(folder / "weights.bin", ns=(5, 5))
    assert provide_graph(tmp_path, IDENTITY, OPTIONS, no_build) == folder


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"half")
        raise MuLlamaError("a weight is missing")

    with pytest.raises(MuLlamaError, match="a weight is missing"):
        provide_graph(tmp_path, IDENTITY, OPTIONS, fail)
    assert [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.parametrize("number", store._FULL)
def test_a_full_disk_is_one_line(tmp_path: Path, number: int) -> None:
    def fill(folder: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(MuLlamaError, match=r"the disk is full.*MU_LLAMA_HOME") as caught:
        provide_graph(tmp_path, IDENTITY, OPTIONS, fill)
    assert "\n" not in str(caught.value)


def test_another_error_of_the_disk_is_one_line(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(MuLlamaError, match=r"can't be written \(Input/output error\)"):
        provide_graph(tmp_path, IDENTITY, OPTIONS, fail)


def test_an_unwritable_cache_leads_to_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cache: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store, "temporary_home", lambda: tmp_path / "temporary")
    monkeypatch.setattr(store, "_check_writable", refuse)
    reports = list[str]()
    folder = provide_graph(tmp_path / "cache", IDENTITY, OPTIONS, Builds(), report=reports.append)
    assert folder.parent == tmp_path / "temporary" / "graphs"
    assert len(reports) == 1
    assert "can't be written (Permission denied)" in reports[0]


def test_a_whole_graph_in_an_unwritable_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = provide_graph(tmp_path, IDENTITY, OPTIONS, Builds())
    monkeypatch.setattr(store, "_check_writable", no_build)
    assert provide_graph(tmp_path, IDENTITY, OPTIONS, no_build) == folder


def test_a_file_in_the_way_leads_to_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "temporary_home", lambda: tmp_path / "temporary")
    (tmp_path / "cache").write_text("a file")
    assert is_whole(provide_graph(tmp_path / "cache", IDENTITY, OPTIONS, Builds()))


def _slow_build(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"one")
    with (folder.parent / "starts").open("a") as file:
        file.write("x")
    time.sleep(0.4)
    (folder / "model.onnx").write_bytes(b"two")
    (folder / "graph.json").write_bytes(b"{}")


def _provide(cache: Path) -> None:
    provide_graph(cache, IDENTITY, OPTIONS, _slow_build)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_provide, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "starts").read_text() == "x"
    assert is_whole(graph_folder(tmp_path, IDENTITY, OPTIONS))


def test_a_killed_build_leaves_nothing_half(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_provide, args=(tmp_path,))
    process.start()
    _wait_for(tmp_path / "starts")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    folder = graph_folder(tmp_path, IDENTITY, OPTIONS)
    assert not folder.exists()
    assert list(tmp_path.glob("*.part"))
    provide_graph(tmp_path, IDENTITY, OPTIONS, Builds())
    assert is_whole(folder)
    assert not list(tmp_path.glob("*.part"))


def test_graphs_that_nothing_used_for_months_are_removed_when_another_is_built(tmp_path: Path) -> None:
    said: list[str] = []
    used, unused, building = (provide_graph(tmp_path, {"llama": name}, OPTIONS, Builds()) for name in "abc")
    for folder in (used, unused, building):
        os.utime(folder / "manifest.json", (0, 0))
    provide_graph(tmp_path, {"llama": "a"}, OPTIONS, no_build)
    with FileLock(f"{building}.lock"):
        new = provide_graph(tmp_path, {"llama": "d"}, OPTIONS, Builds(), report=said.append)
    assert {path for path in tmp_path.iterdir() if path.is_dir()} == {used, building, new}
    assert said == [f"removing {unused}, which nothing has used for two months"]
    assert store.graphs_size_bytes(tmp_path) > 3 * 2048
