"""What is called while a run goes on, to show or log it."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from mu_llama.training.loop import Step
from mu_llama.training.memory import MemoryEstimate


class TrainingCallback(Protocol):
    """Its methods are called while a run goes on, on the main process only."""

    def on_start(self, counts: dict[str, Any], memory: MemoryEstimate, total: int, done: int) -> None:
        """Called before the first update.

        Args:
            counts: numbers of rows, tracks and what was left out.
            memory: that training will need.
            total: updates of the whole run.
            done: updates done before, where a run goes on.
        """

    def on_step(self, step: Step) -> None:
        """Called after each update."""

    def on_validation(self, update: int, loss: float, best: float) -> None:
        """Called with each validation loss, and the lowest so far."""

    def on_samples(self, update: int, samples: list[dict[str, str]]) -> None:
        """Called with sample answers: mappings of `audio`, `question` and `answer`."""


class NoCallback:
    """Does nothing."""

    def on_start(self, counts: dict[str, Any], memory: MemoryEstimate, total: int, done: int) -> None:
        """Ignore it."""

    def on_step(self, step: Step) -> None:
        """Ignore it."""

    def on_validation(self, update: int, loss: float, best: float) -> None:
        """Ignore it."""

    def on_samples(self, update: int, samples: list[dict[str, str]]) -> None:
        """Ignore it."""


class LineLogger:
    """Writes lines to standard error, for logs and launchers.

    Args:
        every: updates between two lines.
    """

    def __init__(self, every: int = 50) -> None:
        self._every, self._total = every, 0

    def on_start(self, counts: dict[str, Any], memory: MemoryEstimate, total: int, done: int) -> None:
        """Write what the run trains on and the memory it needs."""
        self._total = total
        _write(f"training on {describe_counts(counts)}")
        _write(f"memory: {memory}")
        if done:
            _write(f"going on after update {done}")

    def on_step(self, step: Step) -> None:
        """Write loss, learning rate and speed of every so many updates, and of the last."""
        if step.update % self._every == 0 or step.update == self._total:
            speed = step.num_tokens / step.seconds
            line = f"update {step.update}/{self._total}: loss {step.loss:.4f}, rate {step.lr:.2e}, {speed:.0f} tokens/s"
            _write(line)

    def on_validation(self, update: int, loss: float, best: float) -> None:
        """Write the validation loss."""
        _write(f"update {update}: validation loss {loss:.4f} (best {best:.4f})")

    def on_samples(self, update: int, samples: list[dict[str, str]]) -> None:
        """Write nothing: they are in samples.jsonl."""


def describe_counts(counts: dict[str, Any]) -> str:
    """Write counts as text, zeros left out.

    Example:
        >>> describe_counts({"rows": 3, "missing_audio": 0, "cut_at_max_tokens": 1})
        '3 rows, 1 cut at max tokens'
    """
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items() if value)


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
