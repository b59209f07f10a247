"""The only door to librosa and pyloudnorm, and to SciPy, which both bring."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama.cache_folder import choose_library_folder, temporary_home
from mu_llama.errors import ConfigError

_NUMBA_CACHE = "NUMBA_CACHE_DIR"


@dataclass(frozen=True)
class Libraries:
    """What measuring is done with."""

    librosa: Any
    pyloudnorm: Any
    signal: Any
    """`scipy.signal`."""
    ndimage: Any
    """`scipy.ndimage`."""


def load_libraries() -> Libraries:
    """Import what measuring needs.

    Raises:
        ConfigError: if librosa or pyloudnorm isn't installed.
    """
    _choose_numba_cache()
    try:
        with quiet(), _a_home():
            import librosa.util.files
            import pyloudnorm
            from scipy import ndimage, signal
    except ImportError as error:
        raise ConfigError("measuring facts needs librosa and pyloudnorm; run: pip install 'mu-llama[facts]'") from error
    return Libraries(librosa, pyloudnorm, signal, ndimage)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings of libraries about sound that is short, quiet or without pitch to themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _a_home() -> Iterator[None]:
    """Let librosa find a cache folder, which it asks for (and doesn't use) when it is imported, for any user."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(temporary_home())
        try:
            yield
        finally:
            del os.environ["HOME"]
    else:
        yield


def _choose_numba_cache() -> None:
    """Give Numba, which compiles parts of librosa, a folder for what it compiles.

    Beside librosa's own files, where Numba keeps it, may be a folder that can't be written, and then importing librosa
    fails. What the user has chosen stays.
    """
    if os.environ.get(_NUMBA_CACHE):
        return
    librosa = importlib.util.find_spec("librosa")
    if librosa is None or librosa.origin is None or _is_writable_tree(Path(librosa.origin).parent):
        return
    folder = choose_library_folder(_NUMBA_CACHE, "numba")
    numba: Any = sys.modules.get("numba")
    if numba is not None:  # it has read the environment already
        numba.config.CACHE_DIR = str(folder)


def _is_writable_tree(package: Path) -> bool:
    folders = [package, *(path.parent for path in package.glob("*/__init__.py"))]
    caches = [folder / "__pycache__" for folder in folders]
    return all(os.access(cache if cache.exists() else cache.parent, os.W_OK) for cache in caches)
