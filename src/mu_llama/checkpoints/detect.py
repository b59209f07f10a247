"""See what a path is, or a whole directory tree holds: content decides, never a name alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mu_llama.checkpoints.formats import all_formats, format_of
from mu_llama.checkpoints.formats.format import PART_OF_FOLDER, UNKNOWN, Detection, FileHead
from mu_llama.checkpoints.formats.published import PREFIXES, state_dict_of
from mu_llama.checkpoints.formats.tensor_files import is_safetensors, is_torch_file, read_safetensors, read_torch_file
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.errors import CheckpointError
from mu_llama.files import LFS_ADVICE, is_lfs_pointer

MAX_DEPTH = 4
_MAX_FILES = 20_000
_HEAD_BYTES = 4096
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
        return Detection(path, UNKNOWN, "no such file or folder")
    if is_folder(path):
        return recognise_folder(path) or Detection(path, UNKNOWN, "a folder that is no model itself")
    return recognise_file(path) or Detection(path, UNKNOWN, "not a file of weights")


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
        yield _unreadable(folder, error)
        return
    owner = recognise_folder(folder)
    if owner is not None:
        yield owner
        owner_format = format_of(owner.kind)
        if owner_format is not None and owner_format.is_closed:
            return
    others = []
    for path in files:
        if owner is not None and _belongs_to(owner, path):
            continue
        detection = recognise_file(path)
        if detection is not None:
            yield detection
        else:
            others.append(path)
    is_model = owner is not None and owner.kind != UNKNOWN
    if is_model and not is_root:
        return
    note = _rest_note(others, folders if depth_left == 0 else [])
    if note and not is_model:
        yield Detection(folder, UNKNOWN, note)
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


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; one that may not be read isn't."""
    try:
        return path.is_dir()
    except OSError:
        return False


def recognise_folder(folder: Path) -> Detection | None:
    """Tell what a folder is, by the settings files (config.json and the like) directly in it.

    Returns:
        None for a folder that has none of these, or one that isn't a model's.
    """
    unknown = None
    for entry in all_formats():
        if entry.recognise_folder is None:
            continue
        settings = folder / entry.settings_file
        try:
            detection = entry.recognise_folder(folder) if settings.is_file() else None
        except Exception as error:  # one bad file must not hide the others
            detection = _unreadable(folder, error, source=settings)
        if detection is not None and detection.kind != UNKNOWN:
            return detection
        unknown = unknown or detection
    return unknown


def recognise_file(path: Path) -> Detection | None:
    """Tell what a file is; one that can't be read is unknown, with the reason.

    Returns:
        None for a file that neither its content nor its name makes out to be of a model.
    """
    try:
        if path.is_symlink() and not path.exists():
            return Detection(path, UNKNOWN, f"a broken link to {path.readlink()}")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return None
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        return _by_content(FileHead(path, head, status.st_size))
    except Exception as error:  # one bad file must not hide the others
        return _unreadable(path, error)


def _by_content(file: FileHead) -> Detection | None:
    path, is_json = file.path, file.head.startswith(b"{")
    if is_lfs_pointer(file.head):
        return Detection(path, UNKNOWN, LFS_ADVICE.removeprefix("is "))
    if is_json and path.name in _settings_files():
        return _by_settings(path)
    for entry in all_formats():
        detection = None if entry.recognise_file is None else entry.recognise_file(file)
        if detection is not None:
            return detection
    if is_json:
        return None
    if is_safetensors(file.head, file.size_bytes):
        return _by_tensors(path, read_safetensors(path), is_torch=False)
    if is_torch_file(path, file.head):
        content = read_torch_file(path)
        inner = content.get("model", content)
        tensors = {k: v for k, v in inner.items() if isinstance(v, LazyTensor)} if isinstance(inner, dict) else {}
        if not tensors:
            return Detection(path, UNKNOWN, "a PyTorch file without tensors")
        return _by_tensors(path, state_dict_of({"model": tensors}, path), is_torch=True)
    if path.suffix in {
        ".safetensors",
        *(entry.suffix for entry in all_formats() if entry.suffix),
    }:
        return Detection(path, UNKNOWN, f"its content isn't that of a {path.suffix} file")
    return None


def _settings_files() -> set[str]:
    return {entry.settings_file for entry in all_formats() if entry.settings_file}


def _by_settings(path: Path) -> Detection | None:
    for entry in all_formats():
        if entry.settings_file == path.name and entry.settings_stand_for_folder and entry.recognise_folder:
            detection = entry.recognise_folder(path.parent)
            return None if detection is None else replace(detection, path=path)
    return Detection(path, PART_OF_FOLDER, "settings") if recognise_folder(path.parent) else None


def _by_tensors(path: Path, tensors: Mapping[str, LazyTensor], *, is_torch: bool) -> Detection:
    formats = all_formats()
    for entry in formats:
        detection = None if entry.recognise_tensors is None else entry.recognise_tensors(path, tensors, is_torch)
        if detection is not None:
            return detection
    for entry in formats:
        if entry.weight_prefixes and any(name.startswith(entry.weight_prefixes) for name in tensors):
            return Detection(path, PART_OF_FOLDER, entry.weights)
    foreign = next(name for name in tensors if not name.startswith(PREFIXES))
    return Detection(path, UNKNOWN, f"weights of another model, with keys such as {foreign!r}")


def _belongs_to(owner: Detection, path: Path) -> bool:
    """Whether a file is one of those that make up the folder it is in, and so isn't listed on its own."""
    if path.name in _settings_files():
        return True
    entry = format_of(owner.kind)
    return entry is not None and any(path.match(pattern) for pattern in entry.files)


def _unreadable(path: Path, error: Exception, *, source: Path | None = None) -> Detection:
    """Turn what went wrong with a path into a detection, so that it doesn't hide the other files.

    Args:
        path: the file or folder.
        error: what came of reading it.
        source: the file in it that was read.
    """
    source = source or path
    if isinstance(error, OSError):
        reason = f"can't be read ({error.strerror or error})"
    elif isinstance(error, CheckpointError):
        reason = str(error).removeprefix(f"{source}: ").split("\n")[0]
    else:
        reason = f"damaged ({type(error).__name__}: {str(error).split(chr(10))[0]})"
    return Detection(path, UNKNOWN, reason if source == path else f"{source.name}: {reason}")
