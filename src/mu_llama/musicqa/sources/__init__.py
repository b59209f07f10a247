"""Corpora of music with labels: one file each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from mu_llama.errors import ConfigError
from mu_llama.labels.track import Track
from mu_llama.musicqa.sources import folder, magnatagatune, mtg_jamendo, musiccaps
from mu_llama.musicqa.sources.corpus_files import BadTrack

Source = Callable[[Path], Iterator[Track | BadTrack]]
"""Streams the tracks below a root, in a fixed order; rows that can't be used come as `BadTrack`."""

SOURCES: dict[str, Source] = {
    "musiccaps": musiccaps.tracks,
    "magnatagatune": magnatagatune.tracks,
    "mtg-jamendo": mtg_jamendo.tracks,
    "folder": folder.tracks,
}
"""Name -> what reads it."""


def source_by_name(name: str) -> Source:
    """Look a source up; every id it gives comes once, and begins with its name.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in SOURCES:
        raise ConfigError(f"source {name!r} is unknown; expected one of: {', '.join(SOURCES)}")
    return functools.partial(_once, SOURCES[name])


def _once(source: Source, root: Path) -> Iterator[Track | BadTrack]:
    seen: set[str] = set()
    for found in source(root):
        if isinstance(found, Track):
            if found.id in seen:
                yield BadTrack(found.id, "the id came before; expected each once")
                continue
            seen.add(found.id)
        yield found
