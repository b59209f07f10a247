"""How long work is followed: told in numbers here, drawn by whoever wants to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Advance = Callable[[int], None]
"""Told how much more is done."""


class ProgressCallback(Protocol):
    """Begins to follow a piece of work."""

    def __call__(self, label: str, total: int) -> Advance:
        """Start following.

        Args:
            label: what is being done.
            total: how much there is to do, in bytes.

        Returns:
            A function to be told of each part that is done.
        """
        ...


def no_progress(label: str, total: int) -> Advance:
    """Follow nothing."""
    return lambda _: None
