"""Which tracks stay on one side of a split: those of one artist, and those of the same audio."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mu_llama.audio.file_names import equal_files
from mu_llama.labels.track import Track


@dataclass(frozen=True)
class Groups:
    """Groups of a corpus."""

    of: Mapping[str, str]
    """Id of every track to its group; tracks that share an artist or audio, also over others, share it."""
    num_same_audio: int
    """Tracks whose audio another track has, too, byte for byte."""

    def joined(self, track: Track) -> Track:
        """Give a track its group, where that isn't its artist's own."""
        group = self.of.get(track.id, track.group)
        return track if group == track.group else dataclasses.replace(track, shared_group=group)


def content_groups(tracks: Iterable[Track]) -> Groups:
    """Group tracks by artist and by the bytes of their audio; files are read only where sizes are equal.

    The names of groups, and so their splits, don't depend on the order of tracks: one that several artists share has
    the first of their names.
    """
    own: dict[str, str] = {}
    audio: dict[str, Path] = {}
    for track in tracks:
        own[track.id] = track.group
        if track.audio is not None:
            audio[track.id] = track.audio
    first = equal_files(audio.values())
    parents: dict[str, str] = {}
    owners: dict[Path, str] = {}
    for name, path in audio.items():
        _join(parents, own[name], owners.setdefault(first[path], own[name]))
    times = Counter(first[path] for path in audio.values())
    return Groups(
        of={name: _root(parents, group) for name, group in own.items()},
        num_same_audio=sum(times[first[path]] > 1 for path in audio.values()),
    )


def _join(parents: dict[str, str], one: str, other: str) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    if first != second:
        parents[second] = first


def _root(parents: Mapping[str, str], group: str) -> str:
    while group in parents:
        group = parents[group]
    return group
