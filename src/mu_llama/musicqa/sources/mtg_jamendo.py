"""MTG-Jamendo: genres, instruments and moods of full tracks (a tsv with one tag a column, folders of mp3s)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import CATEGORIES
from mu_llama.musicqa.sources.corpus_files import (
    AudioFiles,
    BadTrack,
    SourceError,
    audio_root,
    check_columns,
    find_table,
    named_columns,
    refuse_label_pointer,
    without_empty,
)

_LICENCE = "Creative Commons, by track (Jamendo)"
_MIN_TAGS = 5
"""Tracks with fewer tags are left out, as in MusicQA."""
_MAX_SECONDS = 1e6
_COLUMNS = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION")
_CATEGORY = {"genre": "genre", "instrument": "instrument", "mood/theme": "mood"}
# Tags are written without spaces.
_SPELLED = {
    "acousticguitar": "acoustic guitar", "electricguitar": "electric guitar", "classicalguitar": "classical guitar",
    "drummachine": "drum machine", "electricpiano": "electric piano", "pipeorgan": "pipe organ", "voice": "voice",
    "doublebass": "double bass", "acousticbassguitar": "acoustic bass guitar", "brassinstruments": "brass",
}  # fmt: skip


def mtg_jamendo_tracks(root: Path) -> Iterator[Track | BadTrack]:
    """Stream MTG-Jamendo from a tsv of it, or the folder that holds one and the folders of audio.

    Tracks with fewer than five tags are passed over.

    Raises:
        SourceError: if the tsv isn't there or lacks columns.
    """
    names = ("raw_30s_cleantags_50artists.tsv", "autotagging.tsv", "raw_30s_cleantags.tsv")
    table = find_table(root, names, what="MTG-Jamendo")
    refuse_label_pointer(table)
    audio = AudioFiles(audio_root(root))
    try:
        with table.open(encoding="utf-8-sig") as file:
            header = named_columns(file.readline().rstrip("\r\n").split("\t"), _COLUMNS)
            check_columns(table, header, _COLUMNS, separator="\t")
            for number, line in enumerate(file, start=2):
                if line.strip():
                    row = _track(line.rstrip("\r\n").split("\t"), audio, where=f"{table.name}, line {number}")
                    if row is not None:
                        yield row
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{table}: can't be read as a table in UTF-8 ({error}); check the file") from error


def _track(cells: list[str], audio: AudioFiles, *, where: str) -> Track | BadTrack | None:
    if len(cells) < len(_COLUMNS):
        return BadTrack(where, f"has {len(cells)} cells; expected {len(_COLUMNS)} and tags, separated by tabs")
    name, artist, _, path, duration = cells[: len(_COLUMNS)]
    tags: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    for cell in filter(None, cells[len(_COLUMNS) :]):
        prefix, dashes, tag = cell.partition("---")
        if not dashes or not tag:
            return BadTrack(where, f"has the tag {cell!r}; expected category---tag")
        spelled = _SPELLED.get(tag, tag)
        category = "voice" if spelled in ("voice", "choir") else _CATEGORY.get(prefix, "other")
        tags[category].append(spelled)
    if sum(map(len, tags.values())) < _MIN_TAGS:
        return None
    try:
        duration_s = float(duration)
    except ValueError:
        duration_s = 0.0
    if not 0 < duration_s < _MAX_SECONDS:
        return BadTrack(where, f"has the duration {duration!r}; expected seconds")
    stem = Path(path).stem
    return Track(
        id=f"mtg-jamendo/{name}",
        audio=audio.find(stem, f"{stem}.low"),
        tags=without_empty(tags),
        facts={"duration_s": duration_s},
        artist=artist or None,
        licence=_LICENCE,
        source="mtg-jamendo",
    )
