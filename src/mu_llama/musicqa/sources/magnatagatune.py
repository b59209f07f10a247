"""MagnaTagATune: 188 tags of 29-second clips (annotations_final.csv, mp3s nested or flattened)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mu_llama.labels.track import Track
from mu_llama.musicqa.sources.corpus_files import (
    AudioFiles,
    BadTrack,
    absent_of,
    audio_root,
    by_category,
    find_table,
    read_table,
)

_LICENCE = "CC-BY-NC-SA-1.0 (Magnatune)"
_MIN_TAGS = 5
"""Clips with fewer tags are left out, as in MusicQA."""
_COLUMNS = ("clip_id", "mp3_path")
_SPAN = re.compile(r"-(\d+)-(\d+)$")


def magnatagatune_tracks(root: Path) -> Iterator[Track | BadTrack]:
    """Stream MagnaTagATune from its annotations, or the folder that holds them and the mp3s.

    The artist is the first part of a file's name. Clips with fewer than five tags are passed over.

    Raises:
        SourceError: if the annotations aren't there or lack columns.
    """
    table = find_table(root, ("annotations_final.csv",), what="MagnaTagATune")
    audio = AudioFiles(audio_root(root))
    for where, row in read_table(table, separator="\t", columns=_COLUMNS):
        number, path = row["clip_id"].strip(), row["mp3_path"].strip()
        values = {name: (value or "").strip() for name, value in row.items() if name and name not in _COLUMNS}
        odd = next((name for name, value in values.items() if value not in ("0", "1")), None)
        if not number or not path or odd is not None or None in row:
            reason = (
                f"expected 0 or 1 under {odd!r}, not {values[odd]!r}" if odd else "expected a clip_id and an mp3_path"
            )
            yield BadTrack(where, reason)
            continue
        tags = [name for name, value in values.items() if value == "1"]
        if len(tags) >= _MIN_TAGS:
            yield _track(number, path, tags, audio)


def _track(number: str, path: str, tags: list[str], audio: AudioFiles) -> Track:
    stem = Path(path).stem
    span = _SPAN.search(stem)
    by_name = by_category(tags)
    return Track(
        id=f"magnatagatune/{number}",
        audio=audio.find(stem),
        tags=by_name,
        absent=absent_of(by_name),
        facts={"duration_s": float(span[2]) - float(span[1])} if span else {},
        artist=stem.partition("-")[0].replace("_", " ") or None,
        licence=_LICENCE,
        source="magnatagatune",
    )
