"""The cache folder, and temporary folders for users that have none that can be written."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

from mu_llama.errors import ConfigError

logger = logging.getLogger(__name__)

HOME_VARIABLE = "MU_LLAMA_HOME"


def home_folder() -> Path:
    """Where converted models and cached features live: `MU_LLAMA_HOME`, else the platform's cache folder.

    Users without a home of their own (in containers) have `temporary_home`. The folder may not be writable.
    """
    chosen = os.environ.get(HOME_VARIABLE)
    try:
        folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("mu-llama", appauthor=False))
    except RuntimeError:
        folder = Path("~")
    if folder.parts[:1] != ("~",):
        return folder
    report_unwritable(Path(chosen or "~"), "this user has no home folder")
    return temporary_home()


def writable_home(home: Path | None = None) -> Path:
    """Return the cache folder, or, where it can't be written, `temporary_home`; that is reported once.

    Args:
        home: the folder to try; None is `home_folder()`.

    Raises:
        FileExistsError, NotADirectoryError: if a file stands there, which is a mistake rather than a restriction.
    """
    home = home_folder() if home is None else home
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except (FileExistsError, NotADirectoryError):
        raise
    except OSError as error:
        report_unwritable(home, error.strerror or str(error))
        return temporary_home()
    return home


def choose_library_folder(variable: str, name: str) -> Path:
    """Point a library at a folder of its own below the cache folder, unless the user has pointed it somewhere.

    Args:
        variable: environment variable that the library reads when it is imported.
        name: of the folder.
    """
    if not os.environ.get(variable):
        try:
            home = writable_home()
        except OSError as error:
            report_unwritable(home_folder(), error.strerror or str(error))
            home = temporary_home()
        os.environ[variable] = str(home / name)
    return Path(os.environ[variable])


def has_writable_user_home() -> bool:
    """Tell whether libraries that keep things in the user's home can do so."""
    try:
        return os.access(Path.home(), os.W_OK)
    except RuntimeError:
        return False


@cache
def report_unwritable(home: Path, reason: str) -> None:
    """Log, once for each folder and reason, what it means that nothing can be kept in the cache folder."""
    logger.warning(
        "the cache folder %s can't be written (%s): a temporary folder is used, and what isn't kept is made again, "
        "which takes longer; set %s to a folder that can be written",
        home,
        reason,
        HOME_VARIABLE,
    )


@cache
def temporary_home() -> Path:
    """Make a folder below the machine's temporary one that only this user may open; later processes find it again.

    Raises:
        ConfigError: if no temporary folder can be written either.
    """
    user = os.getuid() if hasattr(os, "getuid") else "home"
    try:
        folder = Path(tempfile.gettempdir()) / f"mu-llama-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        is_private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077 and found.st_uid == user
        if is_private or os.name == "nt":
            return folder
        return Path(tempfile.mkdtemp(prefix="mu-llama-"))  # somebody else has taken the name
    except OSError as error:
        raise ConfigError(
            f"no temporary folder can be written ({error.strerror or error}); set {HOME_VARIABLE} to one that can"
        ) from error
