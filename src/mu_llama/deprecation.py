"""Old names of keyword arguments: they keep working for one release, with a warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def renamed_keywords(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function take keyword arguments by their old names too.

    Args:
        names: each old name with the new one.

    Example:
        >>> @renamed_keywords(quantise="quantize")
        ... def load(quantize=None): return quantize
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     load(quantise="int8"), str(caught[0].message)
        ('int8', 'quantise= is now quantize=')
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> T:
            renamed: dict[str, Any] = keywords
            for old, new in names.items():
                if old not in renamed:
                    continue
                if new in renamed:
                    raise TypeError(f"{function.__name__}() got {old}= and {new}=, which are one argument; give {new}=")
                warnings.warn(f"{old}= is now {new}=", DeprecationWarning, stacklevel=2)
                renamed[new] = renamed.pop(old)
            return function(*args, **keywords)

        return call

    return decorate
