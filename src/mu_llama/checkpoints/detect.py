"""Find a model's parts among what users have: what a path is, what a tree holds, which file plays which role."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mu_llama.checkpoints.found import Detection, Kind
from mu_llama.checkpoints.roles import EXPECTED, NOUNS, OPTIONS, Role, explain_found, explain_wrong_role, role_of
from mu_llama.checkpoints.scan_tree import detect, scan_tree
from mu_llama.errors import CheckpointError

__all__ = ["Chosen", "Detection", "Kind", "Role", "choose_parts", "detect", "explain_wrong_role", "scan_tree"]

_MAX_LINES = 60
_FILE_ROLES = ("model", "knn_index")


@dataclass(frozen=True)
class Chosen:
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
    found: Sequence[Detection], root: Path, *, given: Collection[Literal["llama", "encoder", "knn_index"]] = ()
) -> Chosen:
    """Choose the files of the one model that a directory tree holds.

    Exactly one folder of ours wins over all else. A base checkpoint with a delta is never put together here.

    Args:
        found: from `scan_tree`.
        root: of the tree.
        given: roles that the user filled, and that need no choice; they stay None.

    Raises:
        CheckpointError: if nothing or several things can play a role; its text lists every file and what to type.
    """
    ours = [item for item in found if item.kind == "mu-llama folder"]
    if len(ours) == 1:
        return Chosen(ours[0].path)
    whole = ours or [item for item in found if role_of(item) == "model"]
    deltas = [item for item in found if item.kind == "published checkpoint" and role_of(item) is None]
    if not whole and not deltas and found and found[0].path == root and found[0].kind != "unknown":
        raise CheckpointError(explain_found(found[0], "model"))
    candidates = _candidates(found, whole)
    needed: set[Role] = {"model", "llama"}
    needed |= {"encoder"} if not any("encoder" in item.holds for item in whole) else set()
    asked: list[Role] = ["model"] if ours else [role for role in candidates if role not in given]
    problems = {role: _problem(root, role, candidates[role], is_needed=role in needed) for role in asked}
    if deltas and whole and not ours:
        problems["model"] = f"undecided: whether {_names(root, deltas)} goes on top of {_names(root, whole)}"
    if any(problems.values()):
        to_name = [role for role in asked if problems[role] or role in needed]
        known = {role: candidates[role][0].path for role in to_name if candidates[role] and not problems[role]}
        lines = [f"{root}: can't tell which files make up the model; found", *_listing(found, root)]
        lines += [problem for problem in problems.values() if problem]
        raise CheckpointError("\n".join([*lines, "name them: " + _options(to_name, known, are_ours=bool(ours))]))
    paths = {role: candidates[role][0].path for role in asked if candidates[role]}
    return Chosen(paths["model"], paths.get("llama"), paths.get("encoder"), paths.get("knn_index"))


def _candidates(found: Sequence[Detection], models: Sequence[Detection]) -> dict[Role, list[Detection]]:
    """Sort what is whole by role; a LLaMA without weights is, where the checkpoint holds them."""
    needs = {"tokenizer"} if any("llama" in model.holds for model in models) else {"llama", "tokenizer"}
    return {
        "model": list(models),
        "llama": [item for item in found if role_of(item) == "llama" and needs <= item.holds],
        "encoder": [item for item in found if role_of(item) == "encoder" and "encoder" in item.holds],
        "knn_index": [item for item in found if role_of(item) == "knn_index"],
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


def _listing(found: Sequence[Detection], root: Path) -> list[str]:
    lines = [
        f"  {_relative(item.path, root)}: " + (item.note if item.kind == "unknown" else f"{item.kind}, {item.note}")
        for item in found
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
