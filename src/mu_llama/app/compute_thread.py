"""One thread for everything that PyTorch computes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


class ComputeThread:
    """Runs functions one at a time in a thread of its own; its `run` satisfies `inference.results.Compute`.

    OpenMP starts helper threads for each thread that computes. Once there are more of them than cores they sleep
    between two matrix products instead of spinning, and a token is hundreds of products.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._thread_id = self._pool.submit(threading.get_ident).result()

    def run(self, function: Callable[[], Value], /) -> Value:
        """Run a function in the thread, and return what it returns or raise what it raises."""
        if threading.get_ident() == self._thread_id:
            return function()
        return self._pool.submit(function).result()

    def later(self, function: Callable[[], object]) -> None:
        """Run a function in the thread after all that was submitted before, without waiting; an error is logged."""

        def run() -> None:
            try:
                function()
            except Exception:
                logger.exception("what was computed ahead failed")

        self._pool.submit(run)
