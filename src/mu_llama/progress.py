"""Progress protocol of long work; user interfaces implement it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


class ProgressCallback(Protocol):
    """Called when a piece of work begins."""

    def __call__(self, label: str, total: int) -> Advance:
        """Start to show the progress of a piece of work.

        Args:
            label: name of the work, for people.
            total: size of the work, in bytes.

        Returns:
            A function to be called with the number of bytes done since its last call.
        """
        ...


def no_progress(label: str, total: int) -> Advance:
    """Show nothing."""
    return lambda _: None
