"""What changed since a build began: in its corpus, and in the settings that it is continued with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama.files import read_lines

MAX_NAMED = 5
"""How many tracks are named where only the first few are."""
# They decide nothing that is written about a track.
_NO_LABELS = ("audio", "dropped")
# Where the corpus is doesn't decide what is written: the lists of its tracks are compared instead.
_NOT_COMPARED = ("root",)
# Settings whose command-line option has another name; None: it follows from others and has no option.
_OPTIONS = {"keep_missing": "missing_audio", "prompts_sha256": "prompts", "num_attempts": "attempts", "at_most": None}


@dataclass(frozen=True)
class Changes:
    """Ids of tracks that differ between two lists, in the order of the lists."""

    added: tuple[str, ...] = ()
    """New in the corpus."""
    removed: tuple[str, ...] = ()
    """No longer there, or no longer usable."""
    changed: tuple[str, ...] = ()
    """With other labels, caption or facts."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def outdated(self) -> frozenset[str]:
        """Ids whose replies no longer hold."""
        return frozenset(self.removed + self.changed)

    def __str__(self) -> str:
        parts = (("added", self.added), ("removed", self.removed), ("changed", self.changed))
        return ", ".join(
            f"{len(ids)} {what} ({', '.join([*ids[:MAX_NAMED], *['...'] * (len(ids) > MAX_NAMED)])})"
            for what, ids in parts
            if ids
        )


def changes_between(before: Path, now: Path) -> Changes:
    """Compare two lists of tracks, holding a hash of each track.

    Args:
        before: tracks.jsonl of a build.
        now: the same of the corpus as it is.
    """
    known = {row["id"]: _labels_hash(row) for row in read_lines(before)}
    added, changed, remaining = [], [], set()
    for row in read_lines(now):
        name = row["id"]
        remaining.add(name)
        if name not in known:
            added.append(name)
        elif known[name] != _labels_hash(row):
            changed.append(name)
    return Changes(tuple(added), tuple(name for name in known if name not in remaining), tuple(changed))


def _labels_hash(row: dict[str, Any]) -> bytes:
    labels = {name: value for name, value in row.items() if name not in _NO_LABELS}
    return hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).digest()[:16]


def differing_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which settings differ, a line each, by the names of their command-line options."""
    old, new = _flat(before), _flat(now)
    names = [name for name in sorted((old.keys() | new.keys()) - set(_NOT_COMPARED)) if old.get(name) != new.get(name)]
    with_options = [name for name in names if _OPTIONS.get(name, name) is not None] or names
    return [
        f"  --{(_OPTIONS.get(name) or name).replace('_', '-')}: {_as_option(name, old.get(name))} before, "
        f"{_as_option(name, new.get(name))} now"
        for name in with_options
    ]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat


def _as_option(name: str, value: object) -> str:
    if name == "language" and value is None:
        return "any"
    if name == "keep_missing":
        return "keep" if value else "skip"
    if isinstance(value, bool):
        return "on" if value else "off"
    if name == "prompts_sha256" and value is not None:
        return f"those of SHA-256 {str(value)[:12]}"
    return "not given" if value is None else str(value)
