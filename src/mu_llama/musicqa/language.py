"""Which language a text is in; the only door to py3langid."""

from __future__ import annotations

from functools import cache
from typing import Any

from mu_llama.errors import ConfigError


def check_installed() -> None:
    """See that languages can be told.

    Raises:
        ConfigError: if py3langid isn't installed.
    """
    _library()


def language_of(text: str) -> str:
    """Give the ISO 639-1 code of a text's language; sure from about ten words on.

    Raises:
        ConfigError: if py3langid isn't installed.

    Example:
        >>> language_of("A calm piece for piano and strings, played slowly by a small ensemble.")
        'en'
    """
    return str(_library().classify(text)[0])


@cache
def _library() -> Any:
    try:
        import py3langid
    except ImportError as error:
        raise ConfigError("checking replies needs py3langid; run: pip install 'mu-llama[musicqa]'") from error
    return py3langid
