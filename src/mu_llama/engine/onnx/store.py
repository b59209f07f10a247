"""Built graphs in the cache folder, by content: each is a folder that appears whole or not at all.

A folder is used if its files have the sizes and times that were noted when it was built; where only a time differs, as
after copying, the file's checksum decides. Anything else is built again. Graphs that nothing has used for two months
are removed when another one is built.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mu_llama.cache_folder import temporary_home
from mu_llama.checkpoints.formats.onnx_graph import GRAPH_FILES, MANIFEST_FILE
from mu_llama.engine.onnx.description import GRAPH_VERSION, OLDEST_VERSION, GraphOptions
from mu_llama.errors import MuLlamaError

Build = Callable[[Path], object]
"""Writes a graph's files into an empty folder."""
Report = Callable[[str], None]

_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
_CHUNK_BYTES = 1 << 22
_UNUSED_S = 60 * 24 * 3600.0


def graph_folder(cache: Path, identity: Mapping[str, Any], options: GraphOptions) -> Path:
    """Where a graph is, or will be, in a cache folder.

    Args:
        cache: folder of all graphs.
        identity: what says which weights they are (hashes, or sizes and times of files) and how they are merged; JSON.
        options: of the graph.
    """
    content = {"version": GRAPH_VERSION, "identity": identity, "options": asdict(options)}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return cache / f"{options.precision}-{digest[:32]}"


def provide_graph(
    cache: Path,
    identity: Mapping[str, Any],
    options: GraphOptions,
    build: Build,
    *,
    report: Report = lambda _: None,
) -> Path:
    """Return the folder of a graph, building it first where it isn't there whole.

    Safe with several processes, which build once, and with a kill at any moment.

    Args:
        cache: folder of all graphs. Where it lacks the graph and can't be written, a temporary folder is used.
        identity: see `graph_folder`.
        options: of the graph.
        build: writes the files.
        report: called with one line where something slow or unusual happens.

    Raises:
        MuLlamaError: if the disk is full; nothing is left half written.
    """
    folder = graph_folder(cache, identity, options)
    if is_whole(folder):
        _note_use(folder)
        return folder
    try:
        _check_writable(cache)
    except OSError as error:
        if error.errno in _FULL:
            raise _full(cache) from error
        fallback = temporary_home() / "graphs"
        report(f"{cache} can't be written ({error.strerror or error}): the graph is kept in {fallback}")
        fallback.mkdir(parents=True, exist_ok=True)
        folder = fallback / folder.name
    try:
        with FileLock(f"{folder}.lock"):
            if not is_whole(folder):
                write_graph(folder, build, report=report)
                _remove_unused(folder.parent, report)
            _note_use(folder)
    except OSError as error:
        if error.errno in _FULL:
            raise _full(folder.parent) from error
        raise MuLlamaError(
            f"{folder}: can't be written ({error.strerror or error}); set MU_LLAMA_HOME to another folder"
        ) from error
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a graph as it was built."""
    return damage_of(folder) is None


def damage_of(folder: Path) -> str | None:
    """Say in a few words what is wrong with the files of a graph; None where they are as they were built."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if not OLDEST_VERSION <= manifest["version"] <= GRAPH_VERSION:
            return f"version is {manifest['version']}, expected {OLDEST_VERSION} to {GRAPH_VERSION}"
        files = manifest["files"]
        unlisted = [name for name in GRAPH_FILES if name not in files and name != MANIFEST_FILE]
        if unlisted or any(Path(name).name != name for name in files):
            return f"{MANIFEST_FILE} lists {', '.join(files) or 'nothing'}"
        changed = [name for name, noted in files.items() if not _is_unchanged(folder / name, noted)]
        return f"{', '.join(changed)} not as it was written" if changed else None
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it can't be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST_FILE} is no list of files"


def _is_unchanged(path: Path, noted: Mapping[str, int]) -> bool:
    status = path.stat()
    if status.st_size != noted["size_bytes"]:
        return False
    if status.st_mtime_ns == noted["time_ns"]:
        return True
    if _checksum(path) != noted["checksum"]:
        return False
    with suppress(OSError):  # so that the next one needn't read it
        os.utime(path, ns=(noted["time_ns"], noted["time_ns"]))
    return True


def _check_writable(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache):
        pass


def write_graph(folder: Path, build: Build, *, report: Report = lambda _: None) -> None:
    """Build beside a folder's place and move it there, unless it is there whole; the caller has the lock.

    Args:
        folder: where the graph goes.
        build: writes the files.
        report: called with one line where what is there is built again.

    Raises:
        OSError: if the disk is full.
    """
    if is_whole(folder):
        return
    for left_over in folder.parent.glob(f"{folder.name}.*.part"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    if folder.exists():
        report(f"{folder} is damaged or was left half built: it is built again")
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        build(scratch)
        _write_manifest(scratch)
        scratch.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _note_use(folder: Path) -> None:
    """Keep when a graph was last used, as the time of its manifest."""
    with suppress(OSError):  # where it can't be written, nothing is removed either
        os.utime(folder / MANIFEST_FILE)


def _remove_unused(cache: Path, report: Report) -> None:
    """Remove the graphs that were last used long ago, of any version; one that another process is building stays."""
    for manifest in cache.glob(f"*/{MANIFEST_FILE}"):
        folder = manifest.parent
        with suppress(OSError, Timeout):
            if time.time() - manifest.stat().st_mtime > _UNUSED_S:
                with FileLock(f"{folder}.lock", timeout=0):
                    report(f"removing {folder}, which nothing has used for two months")
                    shutil.rmtree(folder)


def graphs_size_bytes(cache: Path) -> int:
    """Bytes of all graphs in a cache folder, whole or not."""
    total = 0
    for path in cache.glob("*/*"):
        with suppress(OSError):  # removed meanwhile
            total += path.stat().st_size
    return total


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())  # before the name that says that it is whole
        status = path.stat()
        files[path.name] = {
            "size_bytes": status.st_size, "time_ns": status.st_mtime_ns, "checksum": _checksum(path)
        }  # fmt: skip
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        json.dump({"version": GRAPH_VERSION, "files": files}, file)
        file.flush()
        os.fsync(file.fileno())


def _checksum(path: Path) -> int:
    """CRC-32 of a file: finds damage, and is as fast as the disk."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _full(folder: Path) -> MuLlamaError:
    return MuLlamaError(
        f"{folder}: the disk is full, so the model's graph can't be written; free space or set MU_LLAMA_HOME to a "
        "folder on another disk"
    )
