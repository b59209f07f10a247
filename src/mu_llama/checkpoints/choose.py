"""Which file plays which role in a model, and what is wrong with one that can't play the role it was given for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from mu_llama.checkpoints.detect import detect, is_folder, scan_tree
from mu_llama.checkpoints.formats import format_of
from mu_llama.checkpoints.formats.format import PART_OF_FOLDER, UNKNOWN, Detection, Role
from mu_llama.checkpoints.formats.native import KIND as MODEL_FOLDER_KIND
from mu_llama.checkpoints.formats.published import BASELINE_KIND
from mu_llama.errors import CheckpointError
from mu_llama.files import LFS_ADVICE

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


def role_of(detection: Detection) -> Role | None:
    """The role that something can play; None for a baseline, a delta, a lone tokenizer and the like."""
    weight_format = format_of(detection.kind)
    return weight_format.role if weight_format is not None and weight_format.needs <= detection.holds else None


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
    detection = detect(path)
    if role_of(detection) == role:
        return None
    return _explain_tree(detection, role) if is_folder(path) else explain_detection(detection, role)


def explain_detection(detection: Detection, role: Role, *, inside: Path | None = None) -> str:
    """Say what something that can't play a role is, what was expected, and where it belongs.

    Args:
        detection: what it is.
        role: what it was given for.
        inside: the folder that was given, where that only holds it.
    """
    path, kind, expected = detection.path, detection.kind, EXPECTED[role]
    if kind == UNKNOWN:
        return f"{path}: {detection.note} ({OPTIONS[role]} takes {expected})"
    if kind == PART_OF_FOLDER:
        advice = _advice_around(path) or "give that"
        return f"{path} is only one file of a folder ({detection.note}); expected {expected}: {advice}"
    if kind == BASELINE_KIND and role == "model":
        expected = "checkpoint.pth of mu-llama/MU-LLaMA"
    subject = f"{path} is" if inside is None else f"{inside} holds {path.relative_to(inside)},"
    return f"{subject} {_phrase(detection)}, not {NOUNS[role]}; expected {expected}: {_advice(detection, role)}"


def _phrase(detection: Detection) -> str:
    weight_format = format_of(detection.kind)
    assert weight_format is not None, "unknown kinds and parts of folders are explained before"
    return f"part of a {detection.kind} ({detection.note})" if _is_delta(detection) else weight_format.phrase


def _is_delta(detection: Detection) -> bool:
    """Whether this is of a kind that has a role, but lacks what it takes to play it alone."""
    weight_format = format_of(detection.kind)
    return weight_format is not None and weight_format.role is not None and role_of(detection) is None


def _advice(detection: Detection, role: Role) -> str:
    actual_role, weight_format = role_of(detection), format_of(detection.kind)
    if detection.kind == BASELINE_KIND and role == "model":
        return "download that"
    if _is_delta(detection) and role == "model":
        return "give the checkpoint that it goes on top of"
    is_closed = weight_format is not None and weight_format.is_closed
    if role == "encoder" and actual_role == "model" and (is_closed or "encoder" in detection.holds):
        return "give this one as --model and leave --encoder out, it brings its own"
    if actual_role is None:
        return (_advice_around(detection.path) if weight_format and weight_format.is_inner else "") or "give that"
    return f"give this one as {OPTIONS[actual_role]}"


def _advice_around(path: Path) -> str:
    """Say to give the folder that something is a part of; empty where there is none that has a role."""
    for folder in (path.parent, path.parent.parent):
        owner = role_of(detect(folder))
        if owner is not None:
            return f"give its folder, {OPTIONS[owner]} {folder}"
    return ""


def _explain_tree(folder: Detection, role: Role) -> str | None:
    """Explain a folder that doesn't fit itself, by what is below it."""
    detections = [item for item in scan_tree(folder.path) if item.path != folder.path]
    fitting = [item for item in detections if role_of(item) == role]
    direct = [item for item in fitting if item.path.parent == folder.path and _parent_stands_for(item)]
    if (fitting and role == "model") or (len(fitting) == len(direct) == 1 and folder.kind == UNKNOWN):
        return None
    pointers = [item for item in (folder, *detections) if item.kind == UNKNOWN and _POINTER in item.note]
    if pointers and not fitting:
        return explain_detection(pointers[0], role)
    if fitting:
        choices = " or ".join(f"{OPTIONS[role]} {item.path}" for item in fitting)
        return f"{folder.path} isn't {NOUNS[role]} itself, but holds {len(fitting)}: give {choices}"
    # A folder without settings of its own is named by what is in it, first of all by what has a role.
    known = sorted(
        (item for item in detections if format_of(item.kind) is not None), key=lambda item: role_of(item) is None
    )
    if folder.kind != UNKNOWN or not known:
        return explain_detection(folder, role)
    return explain_detection(known[0], role, inside=folder.path)


_MAX_LINES = 60
_FILE_ROLES = ("model", "knn_index")


@dataclass(frozen=True)
class ChosenPaths:
    """Which path plays which role."""

    model: Path
    """A mu-llama folder, or a published checkpoint with the audio adapter."""
    llama: Path | None = None
    """Folder or GGUF file beside a checkpoint; without weights only where the checkpoint holds them."""
    encoder: Path | None = None
    """MERT folder beside a checkpoint; None where it has to come out of the checkpoint."""
    knn: Path | None = None
    """faiss index beside a checkpoint."""


def choose_parts(
    detections: Sequence[Detection], root: Path, *, given: Collection[Literal["llama", "encoder", "knn_index"]] = ()
) -> ChosenPaths:
    """Choose the files of the one model that a directory tree holds.

    Exactly one folder of ours wins over all else. A base checkpoint with a delta is never put together here.

    Args:
        detections: from `scan_tree`.
        root: of the tree.
        given: roles that the user filled, and that need no choice; they stay None.

    Raises:
        CheckpointError: if nothing or several things can play a role; its text lists every file and what to type.
    """
    ours = [item for item in detections if item.kind == MODEL_FOLDER_KIND]
    if len(ours) == 1:
        return ChosenPaths(ours[0].path)
    whole = ours or [item for item in detections if role_of(item) == "model"]
    deltas = [item for item in detections if _is_delta(item)]
    if not whole and not deltas and detections and detections[0].path == root and detections[0].kind != UNKNOWN:
        raise CheckpointError(explain_detection(detections[0], "model"))
    candidates = _candidates(detections, whole)
    needed: set[Role] = {"model", "llama"}
    needed |= {"encoder"} if not any("encoder" in item.holds for item in whole) else set()
    asked: list[Role] = ["model"] if ours else [role for role in candidates if role not in given]
    problems = {role: _problem(root, role, candidates[role], is_needed=role in needed) for role in asked}
    if deltas and whole and not ours:
        problems["model"] = f"undecided: whether {_names(root, deltas)} goes on top of {_names(root, whole)}"
    if any(problems.values()):
        to_name = [role for role in asked if problems[role] or role in needed]
        known = {role: candidates[role][0].path for role in to_name if candidates[role] and not problems[role]}
        lines = [f"{root}: can't tell which files make up the model; found", *_listing(detections, root)]
        lines += [problem for problem in problems.values() if problem]
        raise CheckpointError("\n".join([*lines, "name them: " + _options(to_name, known, are_ours=bool(ours))]))
    paths = {role: candidates[role][0].path for role in asked if candidates[role]}
    return ChosenPaths(paths["model"], paths.get("llama"), paths.get("encoder"), paths.get("knn_index"))


def _candidates(detections: Sequence[Detection], models: Sequence[Detection]) -> dict[Role, list[Detection]]:
    """Sort what is whole by role; a LLaMA without weights is, where the checkpoint holds them."""
    needs = {"tokenizer"} if any("llama" in model.holds for model in models) else {"llama", "tokenizer"}
    return {
        "model": list(models),
        "llama": [item for item in detections if role_of(item) == "llama" and needs <= item.holds],
        "encoder": [item for item in detections if role_of(item) == "encoder" and "encoder" in item.holds],
        "knn_index": [item for item in detections if role_of(item) == "knn_index"],
    }


def _problem(root: Path, role: Role, candidates: Sequence[Detection], *, is_needed: bool) -> str:
    if len(candidates) > 1:
        return f"ambiguous: {_names(root, candidates)} can each be {OPTIONS[role]}"
    if candidates or not is_needed:
        return ""
    return f"missing: {NOUNS[role]} that is whole; expected {EXPECTED[role]}"


def _names(root: Path, items: Sequence[Detection]) -> str:
    names = [_relative(item.path, root) for item in items]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _listing(detections: Sequence[Detection], root: Path) -> list[str]:
    lines = [
        f"  {_relative(item.path, root)}: " + (item.note if item.kind == UNKNOWN else f"{item.kind}, {item.note}")
        for item in detections
    ]
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"  and {len(lines) - _MAX_LINES} more"]
    return lines or ["  nothing"]


def _options(roles: Sequence[Role], known: Mapping[Role, Path], *, are_ours: bool) -> str:
    """Write what to type, with the paths that are clear already."""
    words = []
    for role in roles:
        blank = "FILE" if role in _FILE_ROLES and not are_ours else "FOLDER"
        words += [OPTIONS[role], shlex.quote(str(known[role])) if role in known else blank]
    return " ".join(words)


def llama_at(path: Path) -> Detection:
    """Find what to read for a path that fits the role of a LLaMA: itself, or the one that its folder stands for."""
    detection = detect(path)
    if role_of(detection) == "llama":
        return detection
    return next(item for item in scan_tree(path) if role_of(item) == "llama")


def _parent_stands_for(item: Detection) -> bool:
    weight_format = format_of(item.kind)
    return weight_format is not None and weight_format.parent_stands_for_it
