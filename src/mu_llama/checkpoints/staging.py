"""Where a conversion writes: a folder that appears whole or not at all, and goes on where a kill stopped it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mu_llama.errors import CheckpointError, ConfigError

_PLAN_FILE = "convert.json"
# Room for the card, tokenizers and headers.
_SPARE_BYTES = 16_000_000


@contextmanager
def staging(target: Path, plan: str, *, needed_bytes: int, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into, which takes the target's place at the end; a kill leaves it to be gone on with.

    Args:
        target: where the folder goes.
        plan: what is written of what and how; a folder that was left with another plan is begun anew.
        needed_bytes: how much will be written.
        overwrite: whether what is at the target is replaced.

    Raises:
        ConfigError: if the target exists, or another process writes it.
        CheckpointError: if the disk is too small or can't be written.
    """
    check_target(target, overwrite=overwrite)
    folder = target.with_name(f".{target.name}.partial")
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with disk_errors_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"{target}: another process is writing it; wait for that or choose another name"
            ) from None
        try:
            if not (folder / _PLAN_FILE).is_file() or (folder / _PLAN_FILE).read_text(encoding="utf-8") != plan:
                shutil.rmtree(folder, ignore_errors=True)
                check_space(target.parent, needed_bytes)
                folder.mkdir()
                (folder / _PLAN_FILE).write_text(plan, encoding="utf-8")
            try:
                yield folder
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            (folder / _PLAN_FILE).unlink()
            if target.is_dir():
                shutil.rmtree(target)
            folder.replace(target)
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def disk_errors_named(target: Path) -> Iterator[None]:
    """Turn what the disk has against a target into one line.

    Raises:
        CheckpointError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CheckpointError | ConfigError):
            raise
        raise CheckpointError(
            f"{target}: can't be written ({error.strerror or error}); nothing was kept: free space or choose another "
            "folder, and start again"
        ) from error


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a target that exists, unless it is an empty folder.

    Raises:
        ConfigError: if it does.
    """
    if overwrite or not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    raise ConfigError(f"{target}: exists already; choose another name, or add --overwrite to replace it")


def check_space(folder: Path, needed_bytes: int) -> None:
    """Refuse a disk without room.

    Raises:
        CheckpointError: naming what is free and what is needed.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SPARE_BYTES:
        raise CheckpointError(
            f"{folder}: {free / 1e9:.1f} GB are free, {needed_bytes / 1e9:.1f} GB are needed; free space, choose "
            "another folder, or write half precision with --dtype bf16"
        )
