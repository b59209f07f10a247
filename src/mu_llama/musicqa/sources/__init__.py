"""Corpora of music with labels: one file each, and one line in SOURCES. Importing this loads no audio library."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from mu_llama.errors import ConfigError
from mu_llama.labels.track import Track

if TYPE_CHECKING:
    from mu_llama.musicqa.sources.corpus_files import BadTrack

Source = Callable[[Path], "Iterator[Track | BadTrack]"]
"""Streams the tracks below a root, in a fixed order; rows that can't be used come as `BadTrack`."""


def _imported(module: str, function: str) -> Source:
    """Import a source of this package on its first use."""

    def read(root: Path) -> Iterator[Track | BadTrack]:
        source: Source = resolve_name(f"{__name__}.{module}:{function}")
        return source(root)

    return read


SOURCES: dict[str, Source] = {
    "musiccaps": _imported("musiccaps", "musiccaps_tracks"),
    "magnatagatune": _imported("magnatagatune", "magnatagatune_tracks"),
    "mtg-jamendo": _imported("mtg_jamendo", "mtg_jamendo_tracks"),
    "folder": _imported("folder", "folder_tracks"),
}
"""Name of a corpus, as `--source` takes it -> what reads it."""


def source_by_name(name: str) -> Source:
    """Look up a source; every id that it gives comes once, and begins with its name.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in SOURCES:
        raise ConfigError(f"source {name!r} is unknown; expected one of: {', '.join(SOURCES)}")
    return functools.partial(_each_id_once, SOURCES[name])


def _each_id_once(source: Source, root: Path) -> Iterator[Track | BadTrack]:
    from mu_llama.musicqa.sources.corpus_files import BadTrack

    seen: set[str] = set()
    for row in source(root):
        if isinstance(row, Track):
            if row.id in seen:
                yield BadTrack(row.id, "the id came before; expected each once")
                continue
            seen.add(row.id)
        yield row
