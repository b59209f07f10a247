"""A track: an audio file with its labels, caption, facts and licence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LABELS = ("tags", "absent", "guesses", "doubts")


@dataclass(frozen=True)
class Track:
    """A piece of audio and what is known about it.

    Example:
        >>> track = Track("folder/a.ogg", audio=Path("a.ogg"), tags={"instrument": ("piano",)})
        >>> Track.from_dict(track.to_dict()) == track
        True
    """

    id: str
    """Unique in its corpus."""
    audio: Path | None = None
    """Audio file; None where it is missing."""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels by category: genre, instrument, voice, mood, tempo, other; `dialogues.track_labels` lists more."""
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels that the track is known not to have, by category."""
    guesses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Guesses of an audio tagger, the surest first, by category; answers hedge them."""
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels that an audio tagger finds unlikely, by category."""
    caption: str | None = None
    """Caption."""
    facts: Mapping[str, float | str] = field(default_factory=dict)
    """Measured or stated values by name: tempo_bpm, key, duration_s."""
    title: str | None = None
    """Title."""
    artist: str | None = None
    """Artist; tracks of one artist stay on one side of a split."""
    licence: str | None = None
    """Licence of the audio and its labels, as far as known."""
    shared_group: str | None = None
    """Group of tracks whose audio is the same under several artists or ids; None where it isn't shared."""
    source: str = ""
    """Name of the corpus."""
    dropped: tuple[str, ...] = ()
    """What its source left out of its labels or noted on its audio, one sentence each: `key: 'o' is no key`."""

    @property
    def group(self) -> str:
        """Name of the group that stays in one split: those of the same audio, else the artist, else the track."""
        return self.shared_group or self.artist or self.id

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON; what is unknown is left out."""
        plain = {
            "id": self.id,
            "audio": None if self.audio is None else str(self.audio),
            **{name: _lists(getattr(self, name)) for name in _LABELS},
            "caption": self.caption,
            "facts": dict(self.facts),
            "title": self.title,
            "artist": self.artist,
            "licence": self.licence,
            "shared_group": self.shared_group,
            "source": self.source,
            "dropped": list(self.dropped),
        }
        return {name: value for name, value in plain.items() if value or name == "id"}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Track:
        """Undo `to_dict`."""
        audio = plain.get("audio")
        return cls(
            id=plain["id"],
            audio=None if audio is None else Path(audio),
            **{name: _tuples(plain.get(name, {})) for name in _LABELS},
            caption=plain.get("caption"),
            facts=dict(plain.get("facts", {})),
            title=plain.get("title"),
            artist=plain.get("artist"),
            licence=plain.get("licence"),
            shared_group=plain.get("shared_group"),
            source=plain.get("source", ""),
            dropped=tuple(plain.get("dropped", ())),
        )


def _lists(labels: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {category: list(names) for category, names in labels.items() if names}


def _tuples(labels: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {category: tuple(names) for category, names in labels.items()}
