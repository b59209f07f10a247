"""One session of the demo: its track, what was said about it, and which run of an answer is the current one."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from mu_llama.app.held import TrackHandle
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
