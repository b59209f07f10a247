"""One session of the demo (its track, its conversation, its current run), and the store of all sessions' tracks."""

from __future__ import annotations

import secrets
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu_llama.errors import AudioError
from mu_llama.inference.results import EncodedTrack
from mu_llama.text.prompts import Turn


class Visit:
    """What belongs to one session; runs that a newer one or a stop has overtaken may not change it any more."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.is_hearing = False
        """Whether a new track is on its way."""
        self.track_name = ""
        """Name of the track's file, even of one that was given up."""
        self._token = ""
        self._held: weakref.ref[TrackHandle] | None = None  # `TrackHandles` decides how long it lives
        self._run = self._hearing = 0
        self._lock = threading.Lock()

    def __deepcopy__(self, _: Any) -> Visit:
        return Visit()  # gradio copies the first value for each session

    @property
    def token(self) -> str:
        """Names the track, even one that was given up; empty where there is none."""
        return self._token

    @property
    def held(self) -> TrackHandle | None:
        """The track; None where there is none, or it was given up."""
        return None if self._held is None else self._held()

    @held.setter
    def held(self, held: TrackHandle | None) -> None:
        self._token = "" if held is None else held.token
        self.track_name = "" if held is None else held.path.name
        self._held = None if held is None else weakref.ref(held)

    def expect(self, *, is_coming: bool) -> int:
        """Let the track and what was said go, because another comes or none; gives the number of this change."""
        self.forget()
        with self._lock:
            self.held = None
            self.is_hearing = is_coming
            self._hearing += 1
            return self._hearing

    def arrive(self, hearing: int, held: TrackHandle | None) -> bool:
        """Take in the track that was expected; gives whether nothing else was expected meanwhile."""
        with self._lock:
            if hearing != self._hearing:
                return False
            self.held = held
            self.is_hearing = False
            return True

    def begin(self) -> int:
        """Start a run, which ends all others; gives its number."""
        with self._lock:
            self._run += 1
            return self._run

    def stop(self) -> None:
        """End the run that is going on."""
        self.begin()

    def is_current(self, run: int) -> bool:
        """Whether a run hasn't been overtaken."""
        return run == self._run

    def say(self, run: int, turns: list[Turn]) -> bool:
        """Set what was said, if the run is the current one; gives whether it was."""
        with self._lock:
            if run == self._run:
                self.turns = turns
            return run == self._run

    def forget(self) -> None:
        """Begin a new conversation."""
        with self._lock:
            self._run += 1
            self.turns = []


@dataclass(frozen=True, eq=False)
class TrackHandle:
    """One track of one session."""

    token: str
    """Names it; only its session knows."""
    path: Path
    """The uploaded file."""
    track: EncodedTrack
    """After listening."""
    tags: dict[str, float] = field(default_factory=dict)
    """What the encoder's own tagger hears, likeliest first; empty where it has none."""


class TrackHandles:
    """Holds up to so many tracks; thread-safe.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tracks: OrderedDict[str, TrackHandle] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, path: Path, track: EncodedTrack, tags: dict[str, float]) -> TrackHandle:
        """Hold a track under a new token."""
        held = TrackHandle(secrets.token_urlsafe(16), path, track, tags)
        with self._lock:
            self._tracks[held.token] = held
            while len(self._tracks) > self._most:
                self._tracks.popitem(last=False)
        return held

    def get(self, token: str) -> TrackHandle:
        """Find a track, which makes it the most used.

        Raises:
            AudioError: if there is none, or it was given up.
        """
        if not token:
            raise AudioError("there is no track yet; upload, record or pick one first")
        with self._lock:
            if token not in self._tracks:
                raise AudioError("this track is no longer held, others came after it; upload it again")
            self._tracks.move_to_end(token)
            return self._tracks[token]

    def drop(self, token: str) -> None:
        """Give a track up; one that isn't held is no error."""
        with self._lock:
            self._tracks.pop(token, None)
