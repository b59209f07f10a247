"""Who is told how a run goes."""

from __future__ import annotations

import sys
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


class Lines:
    """Writes a line to standard error now and then, for logs and launchers.

    Args:
        every: updates between two lines.
    """

    def __init__(self, every: int = 50) -> None:
        self._every, self._total = every, 0

    def started(self, counts: dict[str, Any], memory: MemoryEstimate, total: int, done: int) -> None:
        """Say what is trained on and what it needs."""
        self._total = total
        _say(f"training on {told(counts)}")
        _say(f"memory: {memory}")
        if done:
            _say(f"going on after update {done}")

    def stepped(self, step: Step) -> None:
        """Say how the loss is."""
        if step.update % self._every == 0 or step.update == self._total:
            speed = step.num_tokens / step.seconds
            _say(
                f"update {step.update}/{self._total}: loss {step.loss:.4f}, rate {step.rate:.2e}, {speed:.0f} tokens/s"
            )

    def validated(self, update: int, loss: float, best: float) -> None:
        """Say the validation loss."""
        _say(f"update {update}: validation loss {loss:.4f} (best {best:.4f})")

    def answered(self, update: int, samples: list[dict[str, str]]) -> None:
        """Say nothing: they are in samples.jsonl."""


def told(counts: dict[str, Any]) -> str:
    """Counts in words, zeros left out.

    Example:
        >>> told({"rows": 3, "missing_audio": 0, "cut_at_max_tokens": 1})
        '3 rows, 1 cut at max tokens'
    """
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items() if value)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
