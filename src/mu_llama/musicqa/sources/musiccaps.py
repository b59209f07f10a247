"""MusicCaps: captions and aspects of ten-second clips (csv beside the clips)."""

from __future__ import annotations

import ast
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

_LICENCE = "CC-BY-SA-4.0 (captions); the audio is its uploader's"
_MAX_SECONDS = 1e6
_COLUMNS = ("ytid", "start_s", "end_s", "aspect_list", "caption")


def musiccaps_tracks(root: Path) -> Iterator[Track | BadTrack]:
    """Stream MusicCaps from its csv, or the folder that holds it and the clips.

    A clip is found under `[ytid]-[start-end]`, with or without the brackets, with any audio suffix.

    Raises:
        SourceError: if the csv isn't there or lacks columns.
    """
    table = find_table(root, ("musiccaps-public.csv", "musiccaps.csv"), what="MusicCaps")
    audio = AudioFiles(audio_root(root))
    for where, row in read_table(table, separator=",", columns=_COLUMNS):
        try:
            yield _track(row, audio)
        except (ValueError, SyntaxError) as error:
            yield BadTrack(where, f"can't be used ({error})")


def _track(row: dict[str, str], audio: AudioFiles) -> Track:
    if None in row:
        raise ValueError("it has too many cells: check its quotes")
    name, start, end = row["ytid"].strip(), float(row["start_s"]), float(row["end_s"])
    aspects = ast.literal_eval(row["aspect_list"])
    caption = row["caption"].strip()
    if not name or not isinstance(aspects, list) or not all(isinstance(aspect, str) for aspect in aspects):
        raise ValueError("expected a ytid and a list of texts as aspect_list")
    if not caption or not start < end < _MAX_SECONDS:
        raise ValueError("expected a caption and an end after the start")
    span, tags = f"{start:g}-{end:g}", by_category(aspects)
    return Track(
        id=f"musiccaps/{name}-{span}",
        audio=audio.find(f"[{name}]-[{span}]", f"{name}-{span}", f"{name}-[{span}]", f"[{name}]-{span}", name),
        tags=tags,
        absent=absent_of(tags),
        caption=caption,
        facts={"duration_s": end - start},
        artist=name,  # clips of one video stay together
        licence=_LICENCE,
        source="musiccaps",
    )
