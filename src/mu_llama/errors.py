"""The one error family: what came, what was expected, what to do. Old names of arguments, which still work."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class MuLlamaError(Exception):
    """Anything this package raises on purpose; its text is one line that a user can act on."""


class AudioError(MuLlamaError, ValueError):
    """An audio source that can't be used: unreadable, empty, silent, not finite."""


class AudioNotFoundError(AudioError, FileNotFoundError):
    """A path to audio that doesn't exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class QuestionError(MuLlamaError, ValueError):
    """A question or option that can't be used."""


class ModelNotFoundError(MuLlamaError, FileNotFoundError):
    """A model name or path that names no model."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CheckpointError(MuLlamaError, ValueError):
    """A weight file whose contents don't fit: wrong keys, shapes, format or checksum."""


class ConfigError(MuLlamaError, ValueError):
    """Settings that contradict each other or are out of range."""


class EngineError(MuLlamaError, RuntimeError):
    """A computation that can't go on, such as numbers that overflow."""


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
