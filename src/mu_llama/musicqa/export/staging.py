"""Exports that appear whole: written aside, then put in place of what an earlier export left, and of nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mu_llama.errors import ConfigError, MuLlamaError
from mu_llama.files import read_lines, write_whole
from mu_llama.musicqa.items import Item
from mu_llama.musicqa.report import printable

SCRATCH_FOLDER = ".export.partial"
MANIFEST_FILE = ".export.json"
MADE_FROM_FILE = ".made_from.jsonl"
_LOCK_FILE = ".lock"
_CARD_FILE, _CARD_TITLE = "README.md", "# Questions and answers about music"
_CARD = "card"
_NAMES = {
    "published": ("PretrainMusicQA.json", "FinetuneMusicQA.json", "EvalMusicQA.json"),
    "huggingface": (),
    "jsonl": ("train.jsonl", "validation.jsonl", "test.jsonl"),
    "csv": ("musicqa.csv",),
}


class ExportError(MuLlamaError, RuntimeError):
    """An export that can't be made whole; what an earlier one left stays as it was."""


@contextmanager
def staged(out: Path, *, to: str, resumable: Iterable[str] = ()) -> Iterator[Path]:
    """Give a folder to write an export into; when the block ends well, its files go to `out`.

    Files of an earlier export to the same format are replaced or, where the new one has none of that name, removed.
    Files of anybody else are never touched.

    Args:
        out: folder of the export.
        to: name of the format.
        resumable: what a killed export left in the folder that this one may go on with, by name; all else is removed.

    Raises:
        ConfigError: if `out` is a file, another export is at work there, or files that are no export's are in the way.
        ExportError: if it can't be written.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"{out}: is a file; give a folder as --out")
    _check_free(out, (_CARD_FILE, *_NAMES.get(to, ())), to)
    scratch = out / SCRATCH_FOLDER
    is_new = not out.exists()
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with FileLock(scratch / _LOCK_FILE, timeout=0):
            _clear(scratch, {_LOCK_FILE, *resumable})
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


def _clear(scratch: Path, kept: set[str]) -> None:
    for path in scratch.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _put_in_place(scratch: Path, out: Path, to: str) -> None:
    names = [path.relative_to(scratch).as_posix() for path in scratch.rglob("*") if path.is_file()]
    names = sorted((name for name in names if name != _LOCK_FILE), key=lambda name: (name == _CARD_FILE, name))
    _check_free(out, names, to)
    manifest = _manifest(out)
    before = set(manifest.get(to, ()))
    # First of all what is to come, so that an export that is killed here can be made again.
    _write_manifest(out, manifest | {to: sorted(before.union(names))})
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / name, out / name)  # noqa: PTH105 - the name says that it's one step
    others = {name for format_name, listed in manifest.items() if format_name != to for name in listed}
    for name in before.difference(names, others):
        if (out / name).parent.resolve().is_relative_to(out.resolve()):  # and not behind a link that leads away
            (out / name).unlink(missing_ok=True)
    _write_manifest(out, manifest | {to: names})


def _check_free(out: Path, names: Iterable[str], to: str) -> None:
    """See that no file of anybody else is in the way.

    Raises:
        ConfigError: if one is.
    """
    own = {name for listed in _manifest(out).values() for name in listed}
    foreign = [name for name in names if name not in own and os.path.lexists(out / name)]
    if foreign:
        raise ConfigError(
            f"{out}: holds {foreign[0]}, which no export to {to} wrote; choose another --out, or move it away"
        )


def _manifest(out: Path) -> dict[str, list[str]]:
    """The files of earlier exports by format, with their card; earlier versions kept no list, but wrote the card."""
    path, card = out / MANIFEST_FILE, out / _CARD_FILE
    is_own_card = False
    with suppress(OSError, UnicodeDecodeError):
        is_own_card = card.is_file() and _CARD_TITLE in card.read_text(encoding="utf-8")
    plots = [plot.relative_to(out).as_posix() for plot in sorted((out / "plots").glob("*.png"))]
    own_card = {_CARD: [_CARD_FILE, *plots]} if is_own_card else {}
    if path.is_file():
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))["files"]
            return {str(to): [*filter(_is_inside, names)] for to, names in plain.items()} | own_card
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: is damaged ({error}); choose another --out, or remove the export") from error
    if not is_own_card:
        return {}
    found = {to: [name for name in names if (out / name).is_file()] for to, names in _NAMES.items()}
    wavs = [*filter(_is_inside, (f"audios/{row.get('wav')}" for row in read_lines(out / MADE_FROM_FILE)))]
    found["published"] += [*wavs, MADE_FROM_FILE] if wavs else []
    parquets = sorted((out / "data").glob("*-[0-9]*.parquet"))
    found["huggingface"] += [parquet.relative_to(out).as_posix() for parquet in parquets]
    return found | own_card


def _is_inside(name: object) -> bool:
    """Whether a listed name is that of a file below the export: a folder may come from anybody."""
    return isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts


def _write_manifest(out: Path, manifest: dict[str, list[str]]) -> None:
    write_whole(out / MANIFEST_FILE, [json.dumps({"files": manifest}, indent=2) + "\n"])


_MOST_NAMED = 3


def missing_audio(items: Iterable[Item]) -> list[str]:
    """Name the tracks whose audio file isn't there, each with the path; tracks that never had one are fine."""
    return [
        f"{item.track.id}: {item.track.audio}: there is no such file"
        for item in items
        if item.track.audio is not None and not item.track.audio.is_file()
    ]


def missing_audio_error(missing: Sequence[str]) -> ExportError:
    """Say which tracks can't be exported with their audio, and what to do."""
    named = "; ".join(map(printable, missing[:_MOST_NAMED])) + ("; ..." if len(missing) > _MOST_NAMED else "")
    count = "1 track has" if len(missing) == 1 else f"{len(missing)} tracks have"
    return ExportError(
        f"{count} no audio that can be read ({named}); say with --root where the corpus is now, or take "
        "--allow-missing-audio to go on without it"
    )
