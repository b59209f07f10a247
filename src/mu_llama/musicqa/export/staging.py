"""Atomic exports: written into a scratch folder, then moved over the files of an earlier export, and over no others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from mu_llama.errors import ConfigError, MuLlamaError
from mu_llama.files import write_whole
from mu_llama.musicqa.export import EXPORT_FORMATS
from mu_llama.musicqa.items import DataSetItem
from mu_llama.musicqa.report import printable

SCRATCH_FOLDER = ".export.partial"
MANIFEST_FILE = ".export.json"
_LOCK_FILE = ".lock"
_CARD_FILE, _CARD_TITLE = "README.md", "# Questions and answers about music"
_CARD = "card"
_MAX_NAMED = 3

Items = Callable[[], Iterable[DataSetItem]]
"""Opens the stream of a data set's items, in order."""


class WriteExport(Protocol):
    """Writes the files of a format."""

    def __call__(self, items: Items, folder: Path, *, out: Path, allow_missing_audio: bool) -> dict[str, int]:
        """Write items into a scratch folder, whose files go to `out` when all are written.

        Args:
            items: the data set.
            folder: the scratch folder.
            out: folder of the export, with the files of an earlier one.
            allow_missing_audio: leave tracks out whose audio can't be decoded; those whose file isn't there are no
                part of `items` then, unless the format `counts_missing_audio`.

        Returns:
            What was written, by name.

        Raises:
            ExportError: if audio is missing.
            OSError: if the disk is full or the folder can't be written.
        """
        ...


@dataclass(frozen=True)
class ExportFormat:
    """A format that data sets are exported to."""

    write: WriteExport
    """Writes its files."""
    files: tuple[str, ...] = ()
    """Files that it always has; one that is there and no export's own stops an export before it begins."""
    more_files: Callable[[Path], list[str]] = lambda _: []
    """Finds its other files in an export of an earlier version, which kept no list of them."""
    resumable: tuple[str, ...] = ()
    """What of a killed export the next one goes on with, by name; all else of it is removed."""
    has_audio: bool = True
    """Whether missing audio is an error."""
    counts_missing_audio: bool = False
    """Whether `write` itself leaves out tracks whose audio is missing, and counts them."""
    split_files: str | None = None
    """Pattern of a split's files for the hub, with the place `{split}`; named in the card."""


class ExportError(MuLlamaError, RuntimeError):
    """An export that can't be made whole; what an earlier one left stays as it was."""


@contextmanager
def staged(out: Path, *, to: str) -> Iterator[Path]:
    """Give a folder to write an export into; when the block ends well, its files go to `out`.

    Files of an earlier export, to whatever format, are replaced or, where the new one has none of that name, removed.
    Files of anybody else are never touched.

    Args:
        out: folder of the export.
        to: name of the format, a key of EXPORT_FORMATS.

    Raises:
        ConfigError: if `out` is a file, another export is at work there, or files that are no export's are in the way.
        ExportError: if it can't be written.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"{out}: is a file; give a folder as --out")
    export_format = EXPORT_FORMATS[to]()
    _check_free(out, (_CARD_FILE, *export_format.files), to)
    scratch = out / SCRATCH_FOLDER
    is_new = not out.exists()
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with FileLock(scratch / _LOCK_FILE, timeout=0):
            _clear(scratch, {_LOCK_FILE, *export_format.resumable})
            try:
                yield scratch
                _put_in_place(scratch, out, to)
            except Exception:  # a kill, or Ctrl-C, leaves what the next export may go on with
                shutil.rmtree(scratch, ignore_errors=True)
                raise
            shutil.rmtree(scratch, ignore_errors=True)
    except Timeout:
        raise ConfigError(f"{out}: another export is at work there; wait for it, or choose another --out") from None
    except OSError as error:
        if isinstance(error, MuLlamaError):
            raise
        raise ExportError(
            f"{out}: can't be written ({error.strerror or error}); what was there stays: free space, or choose another "
            "--out"
        ) from error
    finally:
        if is_new:
            with suppress(OSError):  # not empty, when all went well
                out.rmdir()


def _clear(scratch: Path, resumable: set[str]) -> None:
    for path in scratch.iterdir():
        if path.name not in resumable:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _put_in_place(scratch: Path, out: Path, to: str) -> None:
    names = [path.relative_to(scratch).as_posix() for path in scratch.rglob("*") if path.is_file()]
    names = sorted((name for name in names if name != _LOCK_FILE), key=lambda name: (name == _CARD_FILE, name))
    _check_free(out, names, to)
    manifest = _manifest(out)
    before = {name for listed in manifest.values() for name in listed}
    # First of all what is to come, so that an export that is killed here can be made again.
    _write_manifest(out, manifest | {to: sorted({*manifest.get(to, ()), *names})})
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / name, out / name)  # noqa: PTH105 - the name says that it's one step
    for name in before.difference(names):
        _remove_exported(out, name)
    _write_manifest(out, {to: names})


def _remove_exported(out: Path, name: str) -> None:
    """Remove a file of an earlier export, and the folders that are empty without it."""
    path = out / name
    if not path.parent.resolve().is_relative_to(out.resolve()):  # behind a link that leads away
        return
    path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or not there
        for folder in path.relative_to(out).parents[:-1]:
            (out / folder).rmdir()


def _check_free(out: Path, names: Iterable[str], to: str) -> None:
    """Check that no file of anybody else is in the way.

    Raises:
        ConfigError: if one is.
    """
    exported = {name for listed in _manifest(out).values() for name in listed}
    foreign = [name for name in names if name not in exported and os.path.lexists(out / name)]
    if foreign:
        raise ConfigError(
            f"{out}: holds {foreign[0]}, which no export to {to} wrote; choose another --out, or move it away"
        )


def _manifest(out: Path) -> dict[str, list[str]]:
    """The files of earlier exports by format, with their card; earlier versions kept no list, but wrote the card."""
    path, card = out / MANIFEST_FILE, out / _CARD_FILE
    is_our_card = False
    with suppress(OSError, UnicodeDecodeError):
        is_our_card = card.is_file() and _CARD_TITLE in card.read_text(encoding="utf-8")
    plots = [plot.relative_to(out).as_posix() for plot in sorted((out / "plots").glob("*.png"))]
    our_card = {_CARD: [_CARD_FILE, *plots]} if is_our_card else {}
    if path.is_file():
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))["files"]
            return {str(to): [*filter(_is_inside, names)] for to, names in plain.items()} | our_card
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: is damaged ({error}); choose another --out, or remove the export") from error
    if not is_our_card:
        return {}
    earlier: dict[str, list[str]] = {}
    for to, get_format in EXPORT_FORMATS.items():
        export_format = get_format()
        listed = [name for name in export_format.files if (out / name).is_file()] + export_format.more_files(out)
        earlier[to] = [*filter(_is_inside, listed)]
    return earlier | our_card


def _is_inside(name: object) -> bool:
    """Whether a listed name is that of a file below the export: a folder may come from anybody."""
    return isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts


def _write_manifest(out: Path, manifest: dict[str, list[str]]) -> None:
    write_whole(out / MANIFEST_FILE, [json.dumps({"files": manifest}, indent=2) + "\n"])


def missing_audio(items: Iterable[DataSetItem]) -> list[str]:
    """Name the tracks whose audio file isn't there, each with the path; tracks that never had one are fine."""
    return [f"{item.track.id}: {item.track.audio}: there is no such file" for item in items if lacks_audio(item)]


def lacks_audio(item: DataSetItem) -> bool:
    """Whether the audio file of an item's track isn't there; a track that never had one lacks none."""
    return item.track.audio is not None and not item.track.audio.is_file()


def missing_audio_error(missing: Sequence[str], *, advice: str) -> ExportError:
    """Say which tracks can't be exported with their audio, and what to do instead of leaving them out."""
    named = "; ".join(map(printable, missing[:_MAX_NAMED])) + ("; ..." if len(missing) > _MAX_NAMED else "")
    count = "1 track has" if len(missing) == 1 else f"{len(missing)} tracks have"
    return ExportError(
        f"{count} no audio that can be read ({named}); {advice}, or take --allow-missing-audio to leave such tracks out"
    )
