"""Tracks that sessions talk about: held under names that can't be guessed, the least used given up first."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from mu_llama.errors import AudioError
from mu_llama.inference.results import EncodedTrack


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
