"""The door to the Hugging Face hub: a hub id becomes a folder on this machine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from mu_llama.errors import CheckpointError, ConfigError, ModelNotFoundError
from mu_llama.files import LFS_ADVICE, is_lfs_pointer

# The hub shows a card of this name.
_CARD_FILE, _HUB_CARD_FILE = "MODEL_CARD.md", "README.md"
_POINTER_HEAD_BYTES = 100
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(text: str) -> bool:
    """Say whether a text is written like a hub id, `owner/name`."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text


def name_or_path(value: str | os.PathLike[str], *, role: str) -> str | Path:
    """Return what names a model or a part of one: text as it is, any object for a path as a `Path`.

    Args:
        value: what a caller gave.
        role: what it is to name, for the message.

    Raises:
        ConfigError: if it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return Path(os.fsdecode(value))
    raise ConfigError(f"{role} is {value!r:.80} ({type(value).__name__}); expected a name, a path or a hub id")


def fetch(hub_id: str, *, patterns: Sequence[str], expected: str, revision: str | None = None) -> Path:
    """Download the files of a hub id that match, or find them in the cache.

    Args:
        hub_id: `owner/name`.
        patterns: which files, e.g. `*.safetensors`.
        expected: what the caller needs, for the error message.
        revision: branch, tag or commit.

    Raises:
        ModelNotFoundError: if it can't be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"{hub_id} is neither here nor can it be downloaded ({type(error).__name__}); expected {expected}"
        ) from error


def refuse_lfs_pointer(path: Path) -> None:
    """Refuse the pointer that a clone without Git LFS leaves in a file's place; other files are left to their reader.

    Raises:
        CheckpointError: if the file is one.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_POINTER_HEAD_BYTES)
    except OSError:
        return
    if is_lfs_pointer(head):
        raise CheckpointError(f"{path}: {LFS_ADVICE.removeprefix('is ')}")


def push(folder: Path, hub_id: str, *, private: bool, message: str) -> str:
    """Upload a folder to the hub, into a repository that is made where it isn't there.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(hub_id, private=private, exist_ok=True)
    if (folder / _CARD_FILE).is_file() and not (folder / _HUB_CARD_FILE).exists():
        shutil.copyfile(folder / _CARD_FILE, folder / _HUB_CARD_FILE)
    return str(api.upload_folder(repo_id=hub_id, folder_path=folder, commit_message=message))
