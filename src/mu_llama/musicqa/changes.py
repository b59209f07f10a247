"""What changed in a corpus since a build listed it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama.files import read_lines

_MOST_NAMED = 5
# They decide nothing that is written about a track.
_NO_LABELS = ("audio", "dropped")


@dataclass(frozen=True)
class Changes:
    """Ids of tracks, in the order of the lists that have them."""

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
        return ", ".join(f"{len(ids)} {what} ({_named(ids)})" for what, ids in parts if ids)


def _named(ids: tuple[str, ...]) -> str:
    return ", ".join(ids[:_MOST_NAMED]) + (", ..." if len(ids) > _MOST_NAMED else "")


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
