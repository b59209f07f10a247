"""See what a path is, or a whole directory tree holds: content decides, never a name alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mu_llama.checkpoints.found import Detection, unreadable
from mu_llama.checkpoints.recognise_files import recognise_file
from mu_llama.checkpoints.recognise_folders import belongs_to, is_folder, recognise_folder
from mu_llama.errors import CheckpointError

MAX_DEPTH = 4
_MAX_FILES = 20_000
_SKIPPED_NAME = "__pycache__"
# The hub's cache: names in `snapshots` link to `blobs`, whose files are named by their hashes.
_HUB_SNAPSHOTS, _HUB_BLOBS = "snapshots", "blobs"


def detect(path: Path) -> Detection:
    """Say what a file or folder is; whatever can't be read is "unknown", with the reason.

    A folder is judged by what is directly in it; `scan_tree` looks further.

    Example:
        >>> import mu_llama
        >>> detect(Path(mu_llama.__file__).parent / "embedded" / "mini").kind
        'mu-llama folder'
    """
    if not os.path.lexists(path):
        return Detection(path, "unknown", "no such file or folder")
    if is_folder(path):
        return recognise_folder(path) or Detection(path, "unknown", "a folder that is no model itself")
    return recognise_file(path) or Detection(path, "unknown", "not a file of weights")


def scan_tree(root: Path, *, max_depth: int = MAX_DEPTH) -> list[Detection]:
    """List what a directory tree holds, in the order of names, a folder before what is in it.

    Hidden files and folders are skipped, and what links lead to twice counts once. Folders in a recognised folder
    aren't looked into, unless it is the root. Files that have nothing to do with models are summed up, one line a
    folder.

    Args:
        root: a folder; a file is a tree of its own.
        max_depth: how many levels of folders below the root are looked into.

    Raises:
        CheckpointError: if there are too many files for a tree of models.
    """
    return list(_walk(root, depth_left=max_depth, seen={os.path.realpath(root)})) if is_folder(root) else [detect(root)]


def _walk(folder: Path, *, depth_left: int, seen: set[str], is_root: bool = True) -> Iterator[Detection]:
    try:
        files, folders = _entries(folder, seen)
    except OSError as error:
        yield unreadable(folder, error)
        return
    owner = recognise_folder(folder)
    if owner is not None:
        yield owner
        if owner.kind in ("mu-llama folder", "peft adapter"):
            return
    others = []
    for path in files:
        if owner is not None and belongs_to(owner, path):
            continue
        found = recognise_file(path)
        if found is not None:
            yield found
        else:
            others.append(path)
    is_model = owner is not None and owner.kind != "unknown"
    if is_model and not is_root:
        return
    note = _rest_note(others, folders if depth_left == 0 else [])
    if note and not is_model:
        yield Detection(folder, "unknown", note)
    if depth_left > 0:
        for path in folders:
            yield from _walk(path, depth_left=depth_left - 1, seen=seen, is_root=False)


def _entries(folder: Path, seen: set[str]) -> tuple[list[Path], list[Path]]:
    """Give the files and folders that weren't seen before, by name."""
    files: list[Path] = []
    folders: list[Path] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        real = os.path.realpath(path)
        if path.name.startswith(".") or path.name == _SKIPPED_NAME or real in seen:
            continue
        seen.add(real)
        (folders if is_folder(path) else files).append(path)
    if len(seen) > _MAX_FILES:
        raise CheckpointError(f"{folder}: too many files (over {_MAX_FILES}); give a folder with only a model's files")
    if _HUB_SNAPSHOTS in {path.name for path in folders}:
        folders = [path for path in folders if path.name != _HUB_BLOBS]
    return files, folders


def _rest_note(others: list[Path], unvisited: list[Path]) -> str:
    phrases = []
    if len(others) == 1:
        phrases.append(f"{others[0].name}, no model")
    elif others:
        phrases.append(f"{len(others)} files that are no model, such as {others[0].name}")
    if unvisited:
        phrases.append(f"too deep to look into {', '.join(path.name for path in unvisited)}")
    return "; ".join(phrases)
