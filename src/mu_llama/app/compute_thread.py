"""One thread for everything that PyTorch computes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import torch

from mu_llama.audio.waveform import Waveform
from mu_llama.encoders.protocol import Encoder

logger = logging.getLogger(__name__)

T = TypeVar("T")
_END = object()


class ComputeThread:
    """Runs functions in one thread, in turn.

    OpenMP gives each thread that computes helpers of its own. Once there are more of them than cores they sleep between
    two products instead of waiting awake, and a word is hundreds of products.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._own = self._pool.submit(threading.get_ident).result()

    def run(self, function: Callable[[], T]) -> T:
        """Run a function there, and give what it gives or raise what it raises."""
        if threading.get_ident() == self._own:
            return function()
        return self._pool.submit(function).result()

    def later(self, function: Callable[[], object]) -> None:
        """Run a function there once what was asked for before is done; nobody waits for it, what fails is logged."""

        def run() -> None:
            try:
                function()
            except Exception:
                logger.exception("what was computed ahead failed")

        self._pool.submit(run)

    def each(self, items: Iterator[T]) -> Iterator[T]:
        """Iterate there, so that what others run comes between two items."""
        while (item := self.run(lambda: next(items, _END))) is not _END:
            yield cast("T", item)

    def encoder(self, make: Callable[[], Encoder]) -> Encoder:
        """Build an encoder there; its windows are encoded there, and made ready wherever it is asked."""
        return cast("Encoder", _EncoderThere(self.run(make), self))


class _EncoderThere:
    def __init__(self, encoder: Encoder, thread: ComputeThread) -> None:
        self._encoder, self._thread = encoder, thread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, window: Waveform) -> torch.Tensor:
        return self._thread.run(lambda: self._encoder.encode(window))
