"""The roles that files play in a model, and what is wrong with a file that was given for a role it can't play."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from mu_llama.checkpoints.found import Detection, Kind
from mu_llama.checkpoints.recognise_folders import is_folder
from mu_llama.checkpoints.scan_tree import detect, scan_tree
from mu_llama.git_lfs import LFS_ADVICE

Role = Literal["model", "llama", "encoder", "knn_index"]

OPTIONS: Mapping[Role, str] = MappingProxyType(
    {"model": "--model", "llama": "--llama", "encoder": "--encoder", "knn_index": "--knn-index"}
)
"""The option that names the file of each role."""
NOUNS: Mapping[Role, str] = MappingProxyType(
    {"model": "MU-LLaMA", "llama": "a LLaMA", "encoder": "a MERT", "knn_index": "a faiss index"}
)
"""What is looked for."""
EXPECTED: Mapping[Role, str] = MappingProxyType(
    {
        "model": "checkpoint.pth of mu-llama/MU-LLaMA or a mu-llama model folder",
        "llama": "a folder with params.json and tokenizer.model, a Hugging Face LLaMA folder or a GGUF file",
        "encoder": "a MERT folder or a hub id such as m-a-p/MERT-v1-330M",
        "knn_index": "a file such as knn.index",
    }
)
"""What can play each role."""
_POINTER = LFS_ADVICE.removeprefix("is ")
_ROLES: dict[Kind, Role] = {
    "mu-llama folder": "model",
    "published checkpoint": "model",
    "Meta LLaMA": "llama",
    "Hugging Face LLaMA": "llama",
    "GGUF": "llama",
    "MERT": "encoder",
    "faiss index": "knn_index",
}
_PHRASES: dict[Kind, str] = {
    "mu-llama folder": "a mu-llama model folder",
    "published checkpoint": "a published MU-LLaMA checkpoint",
    "ImageBind-LLM baseline": "the ImageBind-LLM baseline",
    "Meta LLaMA": "a LLaMA in Meta's layout",
    "Hugging Face LLaMA": "a LLaMA in Hugging Face's layout",
    "GGUF": "a GGUF language model",
    "MERT": "a MERT",
    "faiss index": "a faiss index",
    "peft adapter": "a peft adapter (these aren't supported)",
    "tokenizer": "a tokenizer alone",
}


def role_of(found: Detection) -> Role | None:
    """The role that something can play; None for a baseline, a delta, a lone tokenizer and the like."""
    if found.kind == "published checkpoint" and "adapter" not in found.holds:
        return None
    return _ROLES.get(found.kind)


def explain_wrong_role(path: Path, role: Role) -> str | None:
    """Say in one line why a path can't play a role, and what it is instead.

    Whether a file that fits is also whole is left to its reader.

    Args:
        path: what was given; a path that isn't there is left to the caller.
        role: what it was given for. A folder tree that holds a model somewhere fits "model" (see `choose_parts`);
            a delta, which only goes on top of another checkpoint, doesn't.

    Returns:
        None if it fits.

    Raises:
        CheckpointError: for a folder with too many files to look at.
    """
    if not os.path.lexists(path):
        return None
    found = detect(path)
    if role_of(found) == role:
        return None
    return _explain_tree(found, role) if is_folder(path) else explain_found(found, role)


def explain_found(found: Detection, role: Role, *, inside: Path | None = None) -> str:
    """Say what something that can't play a role is, what was expected, and where it belongs.

    Args:
        found: what it is.
        role: what it was given for.
        inside: the folder that was given, where that only holds it.
    """
    path, kind, expected = found.path, found.kind, EXPECTED[role]
    if kind == "unknown":
        return f"{path}: {found.note} ({OPTIONS[role]} takes {expected})"
    if kind == "part of a folder":
        owner = role_of(detect(path.parent))
        advice = f"give its folder, {OPTIONS[owner]} {path.parent}" if owner else "give that"
        return f"{path} is only one file of a folder ({found.note}); expected {expected}: {advice}"
    if kind == "ImageBind-LLM baseline" and role == "model":
        expected = "checkpoint.pth of mu-llama/MU-LLaMA"
    subject = f"{path} is" if inside is None else f"{inside} holds {path.relative_to(inside)},"
    return f"{subject} {_phrase(found)}, not {NOUNS[role]}; expected {expected}: {_advice(found, role)}"


def _phrase(found: Detection) -> str:
    if found.kind == "published checkpoint" and role_of(found) is None:
        return f"part of a published checkpoint ({found.note})"
    return _PHRASES[found.kind]


def _advice(found: Detection, role: Role) -> str:
    own = role_of(found)
    if found.kind == "ImageBind-LLM baseline" and role == "model":
        return "download that"
    if found.kind == "published checkpoint" and own is None and role == "model":
        return "give the checkpoint that it goes on top of"
    if role == "encoder" and (found.kind == "mu-llama folder" or (own == "model" and "encoder" in found.holds)):
        return "give this one as --model and leave --encoder out, it brings its own"
    return f"give this one as {OPTIONS[own]}" if own else "give that"


def _explain_tree(folder: Detection, role: Role) -> str | None:
    """Explain a folder that doesn't fit itself, by what is below it."""
    found = [item for item in scan_tree(folder.path) if item.path != folder.path]
    fitting = [item for item in found if role_of(item) == role]
    direct = [item for item in fitting if item.kind in ("Meta LLaMA", "GGUF") and item.path.parent == folder.path]
    if (fitting and role == "model") or (len(fitting) == len(direct) == 1 and folder.kind == "unknown"):
        return None
    pointers = [item for item in (folder, *found) if item.kind == "unknown" and _POINTER in item.note]
    if pointers and not fitting:
        return explain_found(pointers[0], role)
    if fitting:
        choices = " or ".join(f"{OPTIONS[role]} {item.path}" for item in fitting)
        return f"{folder.path} isn't {NOUNS[role]} itself, but holds {len(fitting)}: give {choices}"
    # A folder without settings of its own is named by what is in it, first of all by what has a role.
    known = sorted((item for item in found if item.kind in _PHRASES), key=lambda item: role_of(item) is None)
    if folder.kind != "unknown" or not known:
        return explain_found(folder, role)
    return explain_found(known[0], role, inside=folder.path)
