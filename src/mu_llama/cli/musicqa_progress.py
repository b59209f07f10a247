"""What a person sees while a data set is built: tracks listed, measured, and written about."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mu_llama.musicqa.worker import Outcome

_SHOWN_EVERY = 100


class BuildProgress:
    """Progress on standard error, with counts, rate and time left where the number of tracks is known."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._phase = ""
        self._rejected = self._tokens = 0
        self._begun = (0.0, 0)

    def listing(self, found: Iterable[Any]) -> Iterator[Any]:
        """Count tracks while they are looked for, which takes long where audio is opened."""
        from rich.console import Console

        begun = time.monotonic()
        with Console(stderr=True).status("listing tracks") as status:
            for number, track in enumerate(found, start=1):
                if number % _SHOWN_EVERY == 0:
                    rate = number / max(1e-3, time.monotonic() - begun)
                    status.update(f"listing tracks: {number}  {rate:.0f} tracks/s")
                yield track

    def measuring(self, found: Iterable[Any], total: int) -> Iterator[Any]:
        """Draw a bar while tracks are measured; the iteration ends it."""
        self._start("measuring", total, 0)
        try:
            yield from found
        finally:
            self.close()

    def measured(self, done: int) -> None:
        """Count a measured track."""
        if self._phase == "measuring":
            self._advance(done, "measuring")

    def written(self, outcome: Outcome, done: int, total: int) -> None:
        """Count a track that was written about."""
        if self._bar is None or self._phase != "writing":
            self.close()
            self._start("writing", total, max(0, done - 1))
        self._rejected += bool(outcome.reasons)
        self._tokens += outcome.completion_tokens
        self._advance(
            done, f"writing  {self._rejected} rejected" + (f"  {self._tokens} tokens" if self._tokens else "")
        )

    def _advance(self, done: int, description: str) -> None:
        seconds = max(1e-3, time.monotonic() - self._begun[0])
        rate = f"{(done - self._begun[1]) / seconds:.1f} tracks/s"
        self._bar.update(self._task, completed=done, description=description, rate=rate)

    def _start(self, phase: str, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self._bar.start()
        self._task = self._bar.add_task(phase, total=total, completed=done, rate="")
        self._phase, self._begun = phase, (time.monotonic(), done)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._phase = None, ""
