"""The folder of a build: what is to be written, what is, and what was rejected; a kill loses what was in flight."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mu_llama.errors import ConfigError, MuLlamaError
from mu_llama.musicqa.items import SPLITS, Item, read_items
from mu_llama.musicqa.sources.finding import BadTrack
from mu_llama.musicqa.worker import Outcome
from mu_llama.records import Track, drop_cut_line, read_lines, read_lines_at, to_line, write_whole

RUN_FILE, TRACKS_FILE, SKIPPED_FILE = "run.json", "tracks.jsonl", "skipped.jsonl"
REPLIES_FILE, REJECTS_FILE, ITEMS_FILE = "replies.jsonl", "rejects.jsonl", "items.jsonl"


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
        """Write run.json, or see that the build that is there is this one.

        Raises:
            ConfigError: if the folder holds a build with other settings, naming them, or something else.
        """
        path = self.path / RUN_FILE
        if not path.is_file():
            foreign = [name for name in (REPLIES_FILE, ITEMS_FILE, TRACKS_FILE) if (self.path / name).exists()]
            if foreign:
                raise ConfigError(f"{self.path}: holds {foreign[0]} of no build; choose another --out")
            self._write_run({"settings": dict(settings), "versions": dict(versions)})
        before = self.run()["settings"]
        differing = [
            f"  {name}: {before.get(name)!r} before, {settings.get(name)!r} now"
            for name in sorted(before.keys() | settings.keys())
            if before.get(name) != settings.get(name)
        ]
        if differing:
            raise ConfigError(
                f"{self.path}: holds a build with other settings; choose another --out, or go on with the same ones:\n"
                + "\n".join(differing)
            )
        for name in (REPLIES_FILE, REJECTS_FILE):
            drop_cut_line(self.path / name)

    def run(self) -> dict[str, Any]:
        """What run.json holds.

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

    def list_tracks(self, found: Iterable[Track | BadTrack]) -> None:
        """Write down what is to be written about, once, in order; bad rows go to their own file."""
        if self.has_tracks:
            return
        skipped: list[str] = []

        def lines() -> Iterator[str]:
            for row in found:
                if isinstance(row, Track):
                    yield to_line(row.to_dict())
                else:
                    skipped.append(to_line({"where": row.where, "reason": row.reason}))

        scratch = self.path / f".{TRACKS_FILE}"
        write_whole(scratch, lines())
        write_whole(self.path / SKIPPED_FILE, skipped)
        scratch.replace(self.path / TRACKS_FILE)  # last: with it the list is whole

    @property
    def is_whole(self) -> bool:
        """Whether every file of a finished build is there."""
        return all((self.path / name).is_file() for name in (ITEMS_FILE, *(f"{split}.jsonl" for split in SPLITS)))

    @property
    def has_tracks(self) -> bool:
        """Whether the list of tracks is written."""
        return (self.path / TRACKS_FILE).is_file()

    def tracks(self) -> Iterator[Track]:
        """Stream what is to be written about."""
        return map(Track.from_dict, read_lines(self.path / TRACKS_FILE))

    def skipped(self) -> Iterator[dict[str, Any]]:
        """Stream the bad rows."""
        return read_lines(self.path / SKIPPED_FILE)

    def done(self) -> set[str]:
        """Ids of the tracks that have a reply or were rejected."""
        names = (REPLIES_FILE, REJECTS_FILE)
        return {row["id"] for name in names for row in read_lines(self.path / name)}

    def keep(self, outcome: Outcome) -> None:
        """Append what became of a track; a failure isn't kept, for it is to be tried again."""
        if outcome.failed is not None:
            return
        name = REJECTS_FILE if outcome.reply is None else REPLIES_FILE
        row = {key: value for key, value in outcome.to_dict().items() if value not in (None, ())}
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(to_line(row))

    def forget_rejects(self) -> None:
        """Take the rejected tracks up again."""
        (self.path / REJECTS_FILE).unlink(missing_ok=True)
        if (self.path / RUN_FILE).is_file():
            self._write_run({name: value for name, value in self.run().items() if name != "report"})

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Stream everything that was kept."""
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


def finished_items(path: Path) -> Iterator[Item]:
    """Stream the items of a finished build or an import.

    Raises:
        ConfigError: if the folder holds none.
    """
    if not (path / ITEMS_FILE).is_file():
        raise ConfigError(f"{path}: holds no {ITEMS_FILE}; expected a finished `mu-llama musicqa build` or `import`")
    return read_items(path / ITEMS_FILE)
