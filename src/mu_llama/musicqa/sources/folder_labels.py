"""From what tables, sidecars and a file's own tags say to a track's labels: parsed, or dropped with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mu_llama.labels.grounding import terms_said
from mu_llama.labels.vocabulary import CATEGORIES
from mu_llama.musicqa.sources.categories import absent_of, by_category
from mu_llama.musicqa.sources.corpus_files import without_empty
from mu_llama.musicqa.stated_facts import (
    LEAST_BPM,
    MOST_BPM,
    parse_key,
    parse_label,
    parse_licence,
    parse_tempo,
    parse_voice,
)

_CATEGORY = {
    "genre": "genre", "genres": "genre", "style": "genre", "instrument": "instrument", "instruments": "instrument",
    "mood": "mood", "moods": "mood", "voice": "voice", "vocals": "voice", "tempo": "tempo",
}  # fmt: skip
_TAGS = ("tags", "keywords", "labels")
_CAPTION = ("caption", "description", "text")
_LICENCE = ("licence", "license", "copyright")
_BPM = ("tempo_bpm", "bpm", "tbpm", "tmpo")
_KEY = ("key", "initialkey", "initial_key", "tkey")
_ARTIST = ("artist", "album_artist", "author", "composer")
_VOICES: Mapping[str | bool, str] = {True: "voice", False: "no voice"}
_LIST = re.compile(r"\s*[;,|/]\s*")
_NUMBER_FIRST = re.compile(r"\W*\d")
_MOST_SHOWN = 60
_EXPECTED_BPM = f"expected {LEAST_BPM:g} to {MOST_BPM:g} beats per minute"

Known = Mapping[str, Any]
"""Names in small letters, and values."""
Parsed = TypeVar("Parsed")


def usable_tags(stated: Mapping[str, str]) -> dict[str, str]:
    """Of a file's own tags those that say something about the music; comments and encoders don't."""
    wanted = {"genre", "title", "mood", "keywords", *_ARTIST, *_BPM, *_KEY, *_LICENCE}
    return {name: value for name, value in stated.items() if name in wanted and value.strip()}


@dataclass
class _Read:
    """What was read so far."""

    tags: dict[str, list[str]] = field(default_factory=lambda: {category: [] for category in CATEGORIES})
    bpm: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def add(self, label: str, category: str) -> None:
        """Take a label; one that denies something goes to `other`."""
        denied = terms_said(label, is_genre=category == "genre")[1]
        self.tags["other" if denied else category].append(label)


def labels_from(layers: Sequence[Known]) -> dict[str, Any]:
    """Parse what is known of a file.

    Args:
        layers: what was said by whom, the most trusted first. Of a key, tempo or licence the first that is one is
            taken; of the others the first that there is under each name.

    Returns:
        Fields of a `Track`: tags, absent, facts, caption, title, artist, licence and dropped.
    """
    known: dict[str, Any] = {}
    for layer in reversed(layers):
        known |= layer
    read = _read_tags(known)
    facts: dict[str, float | str] = {}
    tempi = [*layers, *({"bpm": bpm} for bpm in read.bpm)]
    bpm = _first_parsed(tempi, _BPM, parse_tempo, f"tempo_bpm: {{}} is no tempo; {_EXPECTED_BPM}", read.dropped)
    if bpm is not None:
        facts["tempo_bpm"] = bpm
    if (key := _first_parsed(layers, _KEY, parse_key, "key: {} is no key", read.dropped)) is not None:
        facts["key"] = key
    licence = _first_parsed(layers, _LICENCE, parse_licence, "licence: {} is no known licence", read.dropped)
    return {
        "tags": without_empty(read.tags),
        "absent": absent_of(read.tags),
        "facts": facts,
        "caption": _first(known, _CAPTION),
        "title": _first(known, ("title",)),
        "artist": _first(known, _ARTIST),
        "licence": licence,
        "dropped": tuple(dict.fromkeys(read.dropped)),
    }


def _read_tags(known: Known) -> _Read:
    read = _Read()
    for column, category in _CATEGORY.items():
        for value in _values(known.get(column), is_tempo=category == "tempo"):
            if category == "tempo" and _NUMBER_FIRST.match(value):
                read.bpm.append(value)
                continue
            label = parse_voice(value) if category == "voice" else parse_label(value)
            if label is None:
                read.dropped.append(f"{category}: {_shown(value)} is no label")
            else:
                read.add(_VOICES.get(label) or str(label), category)
    loose = [value for column in _TAGS for value in _values(known.get(column))]
    for category, sorted_tags in by_category(loose).items():
        read.tags[category] += sorted_tags
    return read


def _first_parsed(
    layers: Sequence[Known],
    names: Sequence[str],
    parse: Callable[[object], Parsed | None],
    reason: str,
    dropped: list[str],
) -> Parsed | None:
    """Give the first value that can be parsed; those before it, or all, are dropped."""
    for layer in layers:
        for name in names:
            value = layer.get(name)
            if isinstance(value, list | tuple) and len(value) == 1:
                value = value[0]
            if value is None or value in ("", []):
                continue
            if (parsed := parse(value)) is not None:
                return parsed
            dropped.append(reason.format(_shown(value)))
    return None


def _values(value: Any, *, is_tempo: bool = False) -> list[str]:
    """Split a list; a number with a decimal comma is one value."""
    if value is None:
        return []
    whole = isinstance(value, list | tuple)
    if is_tempo and not whole and parse_tempo(value) is not None:
        return [str(value)]
    parts = value if whole else _LIST.split(str(value))
    return [" ".join(str(part).split()) for part in parts if str(part).strip()]


def _first(known: Known, names: tuple[str, ...]) -> str | None:
    value = next((known[name] for name in names if known.get(name)), None)
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return None if value is None else " ".join(str(value).split())


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
