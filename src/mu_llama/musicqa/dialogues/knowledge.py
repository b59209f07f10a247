"""What a track's labels let one say: a view of `Track` that the topics ask.

Categories of `Track.tags` that are read here, besides those of the vocabulary: `instrument` is ordered from the most
to the least heard; `lead` plays the melody; `ensemble` is solo, duo, band, choir, orchestra or a quartet; `sound` is
speech or noise where there is no music; `production` is acoustic or electric; `era` and `use` are said as they are.
`energy` (low, medium, high) and `valence` (dark, neutral, bright) stand among the guesses. `clear` lists what a trained
ear hears beyond doubt ("piano", "solo", "no drums"); a track that has it is described by that alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mu_llama.labels.track import Track

FAMILIES: Mapping[str, frozenset[str]] = {
    "guitar": frozenset(("acoustic guitar", "electric guitar", "distorted electric guitar", "guitar")),
    "bass": frozenset(("electric bass", "double bass", "synth bass", "bass")),
    "brass": frozenset(("trumpet", "trombone", "tuba", "French horn", "brass section", "brass")),
    "organ": frozenset(("electric organ", "church organ", "organ")),
    "strings": frozenset(("violin", "viola", "cello", "strings")),
    "woodwinds": frozenset(("flute", "oboe", "clarinet", "bassoon", "recorder", "English horn", "piccolo")),
    "synthesizer": frozenset(("synthesizer",)),
    "piano": frozenset(("piano",)),
}
"""Families and what belongs to them; asked about like instruments."""
_NEAR: tuple[frozenset[str], ...] = (
    frozenset(("acoustic guitar", "electric guitar", "distorted electric guitar", "guitar", "banjo", "harp")),
    frozenset(("violin", "viola", "cello", "strings", "double bass")),
    frozenset(("electric bass", "double bass", "synth bass", "bass", "synthesizer")),
    frozenset(("piano", "electric piano", "harpsichord", "clavinet", "keyboard")),
    frozenset(("electric organ", "church organ", "organ", "accordion", "harmonium", "harmonica", "bandoneon")),
    frozenset(("trumpet", "trombone", "brass section", "French horn", "tuba", "brass")),
    frozenset(("flute", "recorder", "pan flute", "whistle", "woodwinds")),
    frozenset(("oboe", "English horn", "clarinet", "bassoon", "saxophone", "shawm", "bagpipes", "woodwinds")),
    frozenset(("vibraphone", "marimba or xylophone", "bells", "kalimba", "steel drums", "dulcimer")),
    frozenset(("sitar", "koto", "banjo")),
    frozenset(("drums", "hand percussion", "timpani")),
    frozenset(("choir", "strings")),
)
ASKABLE: tuple[str, ...] = (
    "piano", "acoustic guitar", "electric guitar", "violin", "cello", "flute", "trumpet", "saxophone", "clarinet",
    "church organ", "accordion", "harp", "harpsichord", "banjo", "sitar", "choir", "strings", "synthesizer",
    "electric bass", "double bass", "trombone", "oboe", "vibraphone", "electric organ", "distorted electric guitar",
    "bass", "guitar", "brass", "organ", "electric piano", "woodwinds", "bagpipes",
)  # fmt: skip
"""Instruments and families that yes/no questions ask about."""


@dataclass(frozen=True, eq=False)
class TrackLabels:
    """What is known of one track."""

    track: Track

    def sure(self, category: str) -> tuple[str, ...]:
        """True labels of a category."""
        return self.track.tags.get(category, ())

    def guessed(self, category: str) -> tuple[str, ...]:
        """Labels that a tagger believes."""
        return self.track.guesses.get(category, ())

    def doubted(self, category: str) -> tuple[str, ...]:
        """Labels that a tagger finds unlikely."""
        return self.track.doubts.get(category, ())

    def one(self, category: str) -> str | None:
        """The first true label of a category."""
        return next(iter(self.sure(category)), None)

    @property
    def instruments(self) -> tuple[str, ...]:
        """True instruments, the most heard first."""
        return self.sure("instrument")

    def is_clear(self, word: str) -> bool:
        """Whether a description may state a label: if it is heard beyond doubt, or nobody has listened."""
        return "clear" not in self.track.tags or word in self.track.tags["clear"]

    @property
    def clear_instruments(self) -> tuple[str, ...]:
        """True instruments that a description may name, the most heard first."""
        return tuple(name for name in self.instruments if self.is_clear(name))

    @property
    def lists_all_instruments(self) -> bool:
        """Whether an instrument that isn't named isn't there."""
        return "others" in self.track.absent.get("instrument", ())

    @property
    def is_music(self) -> bool:
        """Whether it isn't known to be speech or noise."""
        return not self.sure("sound")

    @property
    def is_solo(self) -> bool:
        """Whether one player plays alone."""
        return self.one("ensemble") == "solo"

    @property
    def has_voice(self) -> bool | None:
        """Whether somebody sings; None where labels don't say."""
        if self.sure("voice"):
            return True
        return False if "voice" in self.track.absent.get("voice", ()) else None

    @property
    def has_drums(self) -> bool | None:
        """Whether a drum kit plays; None where labels don't say."""
        if "drums" in self.instruments:
            return True
        return False if "drums" in self.track.absent.get("instrument", ()) else None

    @property
    def genres(self) -> tuple[str, ...]:
        """Genres that may be affirmed: the label, else a tagger's."""
        return self.sure("genre") or self.guessed("genre")

    @property
    def sings(self) -> bool | None:
        """Whether somebody sings, by labels or else a tagger."""
        if self.has_voice is not None:
            return self.has_voice
        return True if self.guessed("voice") else False if self.doubted("voice") else None

    @property
    def drums_heard(self) -> bool | None:
        """Whether drums play, by labels or else a tagger."""
        if self.has_drums is not None:
            return self.has_drums
        return (
            True if "drums" in self.guessed("instrument") else False if "drums" in self.doubted("instrument") else None
        )

    @property
    def yes_or_no(self) -> Mapping[str, tuple[bool, bool]]:
        """Answers that are evened over a corpus, each with whether it is a guess."""
        found = {"drums": (self.drums_heard, self.has_drums), "voice": (self.sings, self.has_voice)}
        for kind, category, name in (("solo", "ensemble", "solo"), ("acoustic", "production", "acoustic")):
            label = None if self.one(category) is None else self.one(category) == name
            found[kind] = (label, label)
        return {kind: (answer, label is None) for kind, (answer, label) in found.items() if answer is not None}

    @cached_property
    def present(self) -> tuple[str, ...]:
        """Askable instruments and families that are surely there."""
        families = [family for family, members in FAMILIES.items() if members & set(self.instruments)]
        return tuple(name for name in ASKABLE if name in self.instruments or name in families)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Askable instruments and families that are surely not there, and not like anything that is."""
        if not self.lists_all_instruments:
            return ()
        there = set(self.instruments) | set(self.sure("faint"))
        near = there.union(*(group for group in _NEAR if group & there))
        absent = [name for name in ASKABLE if name not in FAMILIES and name not in near]
        families = [name for name, members in FAMILIES.items() if not members & there and name not in near]
        return tuple(dict.fromkeys(absent + families))


def are_near(one: str, other: str) -> bool:
    """Whether two instruments are so alike that one isn't denied beside the other.

    Example:
        >>> are_near("violin", "cello"), are_near("violin", "drums")
        (True, False)
    """
    return any(one in group and other in group for group in _NEAR)
