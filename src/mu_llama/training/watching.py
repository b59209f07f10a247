"""Who is told how a run goes."""

from __future__ import annotations

from typing import Any, Protocol

from mu_llama.training.loop import Step
from mu_llama.training.memory import MemoryEstimate


class Watcher(Protocol):
    """Is told how a run goes; only the main process tells."""

    def started(self, counts: dict[str, Any], memory: MemoryEstimate, total: int, done: int) -> None:
        """Training begins: what it learns from, what it needs, how many updates there are and are done."""

    def stepped(self, step: Step) -> None:
        """An update is done."""

    def validated(self, update: int, loss: float, best: float) -> None:
        """The validation loss was measured."""

    def answered(self, update: int, samples: list[dict[str, str]]) -> None:
        """Sample answers were written."""


class Silent:
    """Watches nothing."""

    def started(self, counts: dict[str, Any], memory: MemoryEstimate, total: int, done: int) -> None:
        """Ignore it."""

    def stepped(self, step: Step) -> None:
        """Ignore it."""

    def validated(self, update: int, loss: float, best: float) -> None:
        """Ignore it."""

    def answered(self, update: int, samples: list[dict[str, str]]) -> None:
        """Ignore it."""
