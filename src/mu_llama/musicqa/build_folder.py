"""The folder of a build: tracks, replies and rejects; safe against kills."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mu_llama.errors import ConfigError, MuLlamaError
from mu_llama.files import drop_cut_line, read_lines, read_lines_at, to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.audio_paths import PLACES_FILE, AudioPaths, write_places
from mu_llama.musicqa.changes import MAX_NAMED, Changes, changes_between, differing_settings
from mu_llama.musicqa.items import SPLITS
from mu_llama.musicqa.sources.corpus_files import BadTrack, SourceError
from mu_llama.musicqa.worker import Outcome

RUN_FILE, TRACKS_FILE, SKIPPED_FILE = "run.json", "tracks.jsonl", "skipped.jsonl"
REPLIES_FILE, REJECTS_FILE, ITEMS_FILE = "replies.jsonl", "rejects.jsonl", "items.jsonl"
FACTS_FILE, DROPPED_FILE = "facts.jsonl", "dropped.jsonl"
_ROWS_FILES = tuple(f"{split}.jsonl" for split in SPLITS)
_OWN_FILES = (
    REPLIES_FILE, REJECTS_FILE, ITEMS_FILE, TRACKS_FILE, SKIPPED_FILE, FACTS_FILE, DROPPED_FILE, PLACES_FILE,
    *_ROWS_FILES,
)  # fmt: skip


# With one of them something was written about a corpus, under the settings in run.json.
_WRITTEN_FILES = (TRACKS_FILE, REPLIES_FILE, REJECTS_FILE, ITEMS_FILE)


class BuildError(MuLlamaError, RuntimeError):
    """A build that can't go on for now; what was written stays."""


class BuildFolder:
    """Files of one build.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other builds out of the folder.

        Raises:
            ConfigError: if one is at work in it, or it can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout:
            raise ConfigError(
                f"{self.path}: another build is at work there; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise BuildError(
                f"{self.path}: can't be written ({error.strerror or error}); what is written stays: free space and "
                "start the same command again"
            ) from error

    def begin(self, settings: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Write run.json, or check that an existing one has the same settings.

        The settings of a build that failed before it wrote a list of tracks don't count.

        Raises:
            ConfigError: if the folder holds a build with other settings, naming them, or something else.
        """
        path = self.path / RUN_FILE
        if not path.is_file():
            foreign = [name for name in _OWN_FILES if (self.path / name).exists()]
            if foreign:
                raise ConfigError(f"{self.path}: holds {foreign[0]} of no build; choose another --out")
        before = self.run()["settings"] if path.is_file() else {}
        if not any((self.path / name).exists() for name in _WRITTEN_FILES):
            self._write_run({"settings": dict(settings), "versions": dict(versions)})
            before = dict(settings)
        differing = differing_settings(before, settings)
        if differing:
            raise ConfigError(
                f"{self.path}: holds a build with other settings; choose another --out, or go on with the same ones:\n"
                + "\n".join(differing)
            )
        for name in (REPLIES_FILE, REJECTS_FILE, FACTS_FILE):
            drop_cut_line(self.path / name)

    def run(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            ConfigError: if there is none, or it is damaged.
        """
        path = self.path / RUN_FILE
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            assert isinstance(content["settings"], dict)
        except (OSError, ValueError, KeyError, AssertionError, TypeError) as error:
            raise ConfigError(
                f"{path}: is missing or damaged; expected the folder of `mu-llama musicqa build`"
            ) from error
        return content

    def finish(self, report: Mapping[str, Any]) -> None:
        """Add the report to run.json."""
        self._write_run(self.run() | {"report": dict(report)})

    def list_tracks(self, corpus: Iterable[Track | BadTrack], *, root: Path | None = None) -> None:
        """Write the list of tracks, in order; bad rows go to their own file.

        Args:
            corpus: its tracks and bad rows.
            root: its folder or label file, for finding the audio again; None where it has none.

        Raises:
            SourceError: if no track can be used; no list is written then.
        """
        self._write_new_list(corpus)
        if root is not None:
            write_places(self.path, root)
        self._take_new_list()

    def changes(self, corpus: Iterable[Track | BadTrack]) -> Changes | None:
        """List the corpus anew beside the list that is there, and compare the two.

        Returns:
            What changed in tracks, maybe nothing but where files are or which rows are bad; None if all is the same.
            `take_changes` or `forget_new_list` is to follow.

        Raises:
            SourceError: if no track can be used any more; the list that is there stays.
        """
        self._write_new_list(corpus)
        pairs = ((self.path / name, self._new(name)) for name in (TRACKS_FILE, SKIPPED_FILE))
        if all(before.is_file() and filecmp.cmp(before, now, shallow=False) for before, now in pairs):
            self.forget_new_list()
            return None
        return changes_between(self.path / TRACKS_FILE, self._new(TRACKS_FILE))

    def take_changes(self, changes: Changes, *, root: Path | None = None) -> None:
        """Put the new list in place of the old one, and drop the replies that no longer hold.

        A kill in between leaves the old list with fewer replies, and the same changes to be found.

        Args:
            changes: what `changes` gave.
            root: see `list_tracks`.
        """
        self._forget_report()
        for name in (REPLIES_FILE, REJECTS_FILE) if changes.outdated else ():
            if (self.path / name).is_file():
                rows = read_lines(self.path / name)
                write_whole(self.path / name, (to_line(row) for row in rows if row["id"] not in changes.outdated))
        self.note_root(root)
        self._take_new_list()

    def note_root(self, root: Path | None) -> None:
        """Record where the corpus is, if it moved."""
        if root is None:
            return
        write_places(self.path, root)
        run, place = self.run(), str(root.absolute())
        if run["settings"].get("root") != place:
            self._write_run(run | {"settings": run["settings"] | {"root": place}})

    def forget_new_list(self) -> None:
        """Delete the new list; the old one stays."""
        for name in (TRACKS_FILE, SKIPPED_FILE):
            self._new(name).unlink(missing_ok=True)

    def _new(self, name: str) -> Path:
        return self.path / f".new.{name}"

    def _write_new_list(self, corpus: Iterable[Track | BadTrack]) -> None:
        paths = AudioPaths.of(self.path)
        bad: list[BadTrack] = []
        num_tracks = 0

        def lines() -> Iterator[str]:
            nonlocal num_tracks
            for row in corpus:
                if isinstance(row, Track):
                    num_tracks += 1
                    yield to_line(paths.to_record(row).to_dict())
                else:
                    bad.append(row)

        write_whole(self._new(TRACKS_FILE), lines())
        if not num_tracks:
            self.forget_new_list()
            named = "; ".join([*map(str, bad[:MAX_NAMED]), *["..."] * (len(bad) > MAX_NAMED)])
            left_out = f", and {len(bad)} left out: {named}" if bad else "; check --root and --source"
            raise SourceError(f"no usable track was found in the corpus{left_out}")
        write_whole(self._new(SKIPPED_FILE), (to_line({"where": row.where, "reason": row.reason}) for row in bad))

    def _take_new_list(self) -> None:
        for name in (SKIPPED_FILE, TRACKS_FILE):  # the tracks last: with them the list is whole
            self._new(name).replace(self.path / name)

    @property
    def is_whole(self) -> bool:
        """Whether every file of a finished build is there."""
        return all((self.path / name).is_file() for name in (ITEMS_FILE, *_ROWS_FILES))

    @property
    def has_tracks(self) -> bool:
        """Whether the list of tracks is written."""
        return (self.path / TRACKS_FILE).is_file()

    def tracks(self) -> Iterator[Track]:
        """Stream the tracks of the list, with absolute paths of audio."""
        paths = AudioPaths.of(self.path)
        for row in read_lines(self.path / TRACKS_FILE):
            yield paths.from_record(Track.from_dict(row))

    def skipped(self) -> Iterator[dict[str, Any]]:
        """Stream the bad rows."""
        return read_lines(self.path / SKIPPED_FILE)

    def write_dropped(self) -> None:
        """Write dropped.jsonl: values left out of the labels of tracks; no file where there are none."""
        rows = [
            to_line({"id": row["id"], "dropped": row["dropped"]})
            for row in read_lines(self.path / TRACKS_FILE)
            if row.get("dropped")
        ]
        if rows:
            write_whole(self.path / DROPPED_FILE, rows)
        else:
            (self.path / DROPPED_FILE).unlink(missing_ok=True)

    def done(self) -> set[str]:
        """Ids of the tracks that have a reply or were rejected."""
        names = (REPLIES_FILE, REJECTS_FILE)
        return {row["id"] for name in names for row in read_lines(self.path / name)}

    def keep(self, outcome: Outcome) -> None:
        """Append the outcome of a track; a failure isn't recorded, so that the track is tried again."""
        if outcome.failed is not None:
            return
        name = REJECTS_FILE if outcome.reply is None else REPLIES_FILE
        row = {key: value for key, value in outcome.to_dict().items() if value not in (None, ())}
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(to_line(row))

    def forget_rejects(self) -> None:
        """Delete the rejects, so that their tracks are written about again."""
        (self.path / REJECTS_FILE).unlink(missing_ok=True)
        if (self.path / RUN_FILE).is_file():
            self._forget_report()

    def _forget_report(self) -> None:
        self._write_run({name: value for name, value in self.run().items() if name != "report"})

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Stream all recorded outcomes."""
        for name in (REPLIES_FILE, REJECTS_FILE):
            yield from read_lines(self.path / name)

    def replies_in_order(self) -> Iterator[tuple[Track, dict[str, Any]]]:
        """Stream tracks with their replies in the order of the list; memory holds only where each begins."""
        path = self.path / REPLIES_FILE
        places = {row["id"]: offset for offset, row in read_lines_at(path)}
        if not places:
            return
        with path.open("rb") as file:
            for track in self.tracks():
                if track.id in places:
                    file.seek(places[track.id])
                    yield track, json.loads(file.readline())

    def _write_run(self, content: Mapping[str, Any]) -> None:
        write_whole(self.path / RUN_FILE, [json.dumps(content, indent=2, ensure_ascii=False) + "\n"])
