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


@dataclass(frozen=True, eq=False)
class TrackHandle:
    """One track of one session."""

    token: str
    """Unguessable name; only its session knows it."""
    path: Path
    """The uploaded file."""
    track: EncodedTrack
    """The track after encoding."""
    tags: dict[str, float] = field(default_factory=dict)
    """Probabilities of the encoder's own tags, likeliest first; empty where it has no tagger."""


class TrackHandles:
    """Stores up to so many tracks, the least recently used dropped first; thread-safe.

    Args:
        max_tracks: how many.
    """

    def __init__(self, max_tracks: int) -> None:
        self._max_tracks = max_tracks
        self._handles: OrderedDict[str, TrackHandle] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, path: Path, track: EncodedTrack, tags: dict[str, float]) -> TrackHandle:
        """Store a track under a new token."""
        handle = TrackHandle(secrets.token_urlsafe(16), path, track, tags)
        with self._lock:
            self._handles[handle.token] = handle
            while len(self._handles) > self._max_tracks:
                self._handles.popitem(last=False)
        return handle

    def get(self, token: str) -> TrackHandle:
        """Look a track up, which makes it the most recently used.

        Raises:
            AudioError: if there is none, or it was dropped.
        """
        if not token:
            raise AudioError("there is no track yet; upload, record or pick one first")
        with self._lock:
            if token not in self._handles:
                raise AudioError("this track was dropped, because newer tracks came; upload it again")
            self._handles.move_to_end(token)
            return self._handles[token]

    def drop(self, token: str) -> None:
        """Remove a track; an unknown token is no error."""
        with self._lock:
            self._handles.pop(token, None)


class DemoSession:
    """State of one session; a run that a newer run or a stop has superseded may not change it any more."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.is_encoding = False
        """Whether a new track is being encoded."""
        self.track_name = ""
        """Name of the track's file, kept after the track is dropped."""
        self._token = ""
        self._handle: weakref.ref[TrackHandle] | None = None  # `TrackHandles` decides how long it lives
        self._run = self._change = 0
        self._lock = threading.Lock()

    def __deepcopy__(self, _: Any) -> DemoSession:
        return DemoSession()  # gradio copies the first value for each session

    @property
    def token(self) -> str:
        """Token of the track, kept after the track is dropped; empty where there is none."""
        return self._token

    @property
    def handle(self) -> TrackHandle | None:
        """The track; None where there is none, or it was dropped."""
        return None if self._handle is None else self._handle()

    @handle.setter
    def handle(self, handle: TrackHandle | None) -> None:
        self._token = "" if handle is None else handle.token
        self.track_name = "" if handle is None else handle.path.name
        self._handle = None if handle is None else weakref.ref(handle)

    def expect_track(self, *, is_coming: bool) -> int:
        """Remove the track and the conversation, because another track comes or none; returns the change's number."""
        self.clear_turns()
        with self._lock:
            self.handle = None
            self.is_encoding = is_coming
            self._change += 1
            return self._change

    def set_track(self, change: int, handle: TrackHandle | None) -> bool:
        """Set the track that a change was for; returns whether no other change came meanwhile."""
        with self._lock:
            if change != self._change:
                return False
            self.handle = handle
            self.is_encoding = False
            return True

    def begin_run(self) -> int:
        """Start a run, which supersedes all others; returns its number."""
        with self._lock:
            self._run += 1
            return self._run

    def stop(self) -> None:
        """End the current run."""
        self.begin_run()

    def is_current(self, run: int) -> bool:
        """Whether a run hasn't been superseded."""
        return run == self._run

    def set_turns(self, run: int, turns: list[Turn]) -> bool:
        """Set the conversation, if the run is the current one; returns whether it was."""
        with self._lock:
            if run == self._run:
                self.turns = turns
            return run == self._run

    def clear_turns(self) -> None:
        """Begin a new conversation."""
        with self._lock:
            self._run += 1
            self.turns = []
