"""Paths of audio in the files of a data set: they hold from any working directory and after a move."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from mu_llama.errors import ConfigError
from mu_llama.files import write_whole
from mu_llama.labels.track import Track

PLACES_FILE = "audio.json"
_RUN_FILE = "run.json"


@dataclass(frozen=True)
class AudioPaths:
    """Converts paths of audio to those stored in a data set's files, and back.

    Written are paths relative to the folder of the data set. `find` also looks where the corpus was when the data set
    was made, so that either of the two may move alone, and understands the data sets of earlier versions, whose paths
    were relative to the working directory.
    """

    folder: Path
    """Folder of the data set, absolute."""
    root: Path | None = None
    """Folder of the corpus when the data set was made, absolute; None where it isn't known."""
    relative_root: Path | None = None
    """The same, relative to `folder`; None in data sets of earlier versions."""
    given_root: Path | None = None
    """Where the corpus is now, if the caller says so."""

    @classmethod
    def of(cls, folder: Path, *, root: Path | None = None) -> AudioPaths:
        """Read where the audio of a data set is.

        Args:
            folder: of the data set.
            root: where its corpus is now (folder or label file), instead of where it was.

        Raises:
            ConfigError: if the folder's record of it is damaged, or `root` isn't there.
        """
        if root is not None and not root.exists():
            raise ConfigError(f"{root}: there is no such folder; expected that of the corpus")
        given = None if root is None else _audio_folder(root)
        real = Path(os.path.realpath(folder))
        path = folder / PLACES_FILE
        try:
            if path.is_file():
                plain = json.loads(path.read_text(encoding="utf-8"))
                return cls(real, Path(plain["root"]), Path(plain["root_from_here"]), given)
            run = folder / _RUN_FILE
            before = json.loads(run.read_text(encoding="utf-8"))["settings"].get("root") if run.is_file() else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{folder}: {PLACES_FILE} or {_RUN_FILE} can't be read ({error!r}); restore the file from a copy, or "
                "build again"
            ) from error
        return cls(real, None if before is None else Path(before), None, given)

    def to_record(self, track: Track) -> Track:
        """Give a track as it is written into a file of the folder."""
        if track.audio is None:
            return track
        return dataclasses.replace(track, audio=Path(relative_to_folder(track.audio, self.folder)))

    def from_record(self, track: Track) -> Track:
        """Undo `to_record`: the path is absolute, and that of a file wherever one was found."""
        return track if track.audio is None else dataclasses.replace(track, audio=self.find(track.audio))

    def find(self, stored: Path) -> Path:
        """Give the audio file of a stored path, or the first place where it was looked for."""
        places = (_absolute(place) for place in self._places(stored))
        first = next(places)
        if first.is_file():
            return first
        return next((place for place in places if place.is_file()), first)

    def _places(self, stored: Path) -> Iterator[Path]:
        below = self._below_root(stored)
        if self.given_root is not None and below is not None:
            yield self.given_root / below
        yield self.folder / stored
        if self.root is not None and below is not None:
            yield self.root / below
        if not stored.is_absolute():
            yield Path.cwd() / stored
        if self.relative_root is None and self.root is not None and not stored.is_absolute():
            # Relative to the working directory of an earlier version's build, which was around the corpus or below.
            yield from (around / stored for around in self.root.parents)

    def _below_root(self, stored: Path) -> PurePath | None:
        """The path from the folder of the corpus on; None for a file that was outside of it."""
        if self.relative_root is not None:
            prefix = self.root if stored.is_absolute() else self.relative_root
            return stored.relative_to(prefix) if prefix is not None and stored.is_relative_to(prefix) else None
        if self.root is None:
            return None
        for root in (self.root, self.root.parent):  # a label file may have been given
            if stored.is_absolute():
                if stored.is_relative_to(root):
                    return stored.relative_to(root)
                continue
            for length in range(min(len(stored.parts), len(root.parts)), 0, -1):
                if stored.parts[:length] == root.parts[-length:]:
                    return PurePath(*stored.parts[length:])
        return None if stored.is_absolute() else stored


def write_places(folder: Path, root: Path) -> None:
    """Record where the audio of a data set is.

    Args:
        folder: of the data set.
        root: of the corpus, or its label file.

    Raises:
        OSError: if the disk is full or the folder can't be written.
    """
    audio = Path(os.path.realpath(_audio_folder(root)))
    plain = {"root": str(audio), "root_from_here": relative_to_folder(audio, folder)}
    text = json.dumps(plain, indent=2) + "\n"
    path = folder / PLACES_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_whole(path, [text])


def relative_to_folder(path: Path, folder: Path) -> str:
    """Give a path from a folder on, whatever links lead to either; absolute where there is none, as between drives."""
    real = Path(os.path.realpath(path.parent)) / path.name
    try:
        return Path(os.path.relpath(real, os.path.realpath(folder))).as_posix()
    except ValueError:
        return real.as_posix()


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _audio_folder(root: Path) -> Path:
    return root.parent if root.is_file() else root
