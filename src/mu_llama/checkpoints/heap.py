"""Keep the heap free of holes while a big model is read."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD = -3
# Above the pieces that weights are converted in, below the smallest big weight.
_WHILE_READING_BYTES = 12_000_000
_AFTERWARDS_BYTES = 32_000_000


@contextmanager
def without_holes() -> Iterator[None]:
    """Let glibc give big blocks back to the system when they are freed, and shrink its heap at the end.

    Otherwise weights that stay are scattered among temporaries that go: up to 2 GB more for an int8 model of 7 GB.
    Does nothing where the C library isn't glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _WHILE_READING_BYTES)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _AFTERWARDS_BYTES)
        libc.malloc_trim(0)
