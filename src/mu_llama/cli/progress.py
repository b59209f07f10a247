"""Progress bars on standard error, for long work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_MIN_BAR_BYTES = 500_000_000


class ProgressBars:
    """Draws a bar for each piece of work; a `progress.ProgressCallback`. Bars disappear when all work is done."""

    def __init__(self, min_bytes: int = _MIN_BAR_BYTES) -> None:
        self._min_bytes = min_bytes
        self._lock = threading.Lock()
        self._bars: Any = None

    def __call__(self, label: str, total: int) -> Callable[[int], None]:
        """Begin a bar of so many bytes; short work gets none."""
        if total < self._min_bytes:
            return lambda _: None
        with self._lock:
            if self._bars is None:
                self._bars = _make_bars()
                self._bars.start()
            task = self._bars.add_task(label, total=total)

        def advance(done: int) -> None:
            with self._lock:
                if self._bars is not None:
                    self._bars.advance(task, done)
                    if self._bars.finished:
                        self._close()

        return advance

    def close(self) -> None:
        """Leave the terminal as it was, also after an error."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def plain_console(*, stderr: bool = True) -> Any:
    """A console of rich that prints every text as it is: names of files may hold markup and codes of emoji."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def _make_bars() -> Any:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=plain_console(), transient=True)
