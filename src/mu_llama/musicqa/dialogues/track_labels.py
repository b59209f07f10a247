"""What a track's labels let one say, and how yes and no are kept even over a corpus."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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


_ONLY_ANSWER = 0.1
_CONTESTED = 0.2
_ONE_SIDED = 0.01


class AnswerBalancer:
    """How often each name could be a yes or a no over a corpus, and how often each level or answer comes up.

    Everything is evened within each source (`Track.source`), so that what kind of music it is doesn't tell the answer
    either: bands that mostly have drums and solos that never do would teach that bands have drums.

    Args:
        tracks: the corpus; where it is empty, nothing is evened out.
    """

    def __init__(self, tracks: Iterable[Track] = ()) -> None:
        self._yes: Counter[tuple[str, str, str]] = Counter()
        self._no: Counter[tuple[str, str, str]] = Counter()
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self.genres: Counter[str] = Counter()
        """Genres of the corpus, labels and guesses, by how often each is a track's."""
        known = [TrackLabels(track) for track in tracks]
        for one in known:
            self._count(one)
        self._heaviest: dict[tuple[str, str], float] = {}
        for one in known:
            for kind, there, missing in _drawn_from(one):
                key = one.track.source, kind
                self._heaviest[key] = max(self._heaviest.get(key, 0.0), sum(self._weights(*key, there, missing)))

    def _count(self, known: TrackLabels) -> None:
        source = known.track.source
        for kind, there, missing in _drawn_from(known):
            self._yes.update((source, kind, name) for name in there)
            self._no.update((source, kind, name) for name in missing)
        for name in known.genres:
            self.genres[name] += 1 / len(known.genres)  # type: ignore[assignment]
        for kind, (answer, _) in known.yes_or_no.items():
            self._answers[source, kind, str(answer)] += 1
        for kind in ("energy", "valence"):
            self._answers.update((source, kind, level) for level in known.guessed(kind))

    def affirmed(self, source: str, kind: str, name: str) -> int:
        """How many tracks of a source have a name."""
        return self._yes[source, kind, name]

    def draw(
        self, source: str, kind: str, there: Sequence[str], missing: Sequence[str], rng: random.Random
    ) -> tuple[str, bool] | None:
        """Choose a name to ask about, so that over a source each is affirmed as often as it is denied.

        None where there is nothing to ask, or now and then, the more often the less a track's own names weigh: else
        the frequent ones, whose weights are small, would be asked about too often where nothing rare is beside them.
        """
        names = [(name, True) for name in there] + [(name, False) for name in missing]
        weights = self._weights(source, kind, there, missing)
        if not names or rng.random() * self._heaviest.get((source, kind), 0.0) > sum(weights):
            return None
        return rng.choices(names, weights)[0]

    def _weights(self, source: str, kind: str, there: Sequence[str], missing: Sequence[str]) -> list[float]:
        return [
            self._weight(source, kind, name, is_there)
            for names, is_there in ((there, True), (missing, False))
            for name in names
        ]

    def _weight(self, source: str, kind: str, name: str, is_there: bool) -> float:
        """The rarer answer of a name always, the other as often; of a name with one answer now and then."""
        yes, no = self._yes[source, kind, name], self._no[source, kind, name]
        own = yes if is_there else no
        return max(min(yes, no) / own, _ONE_SIDED) if own else 1.0

    def draw_genre(self, names: Sequence[str], rng: random.Random) -> str | None:
        """Choose among genres by how often the corpus has them; None if it has none of them."""
        weights = [float(self.genres[name]) for name in names]
        return rng.choices(names, weights)[0] if sum(weights) else None

    def is_open(self, source: str, kind: str) -> bool:
        """Whether listening is what decides in a source: its rarer answer is a fifth at least."""
        counts = [count for (where, of, _), count in self._answers.items() if (where, of) == (source, kind)]
        return len(counts) > 1 and min(counts) >= _CONTESTED * sum(counts)

    def keeps(self, source: str, kind: str, answer: object, rng: random.Random) -> bool:
        """Whether a question with this answer is asked of a source: its rarest answer always, others as often.

        A source that has only one answer is asked now and then: a tenth of the time.
        """
        counts = [count for (where, of, _), count in self._answers.items() if (where, of) == (source, kind)]
        if not counts:
            return True
        if len(counts) == 1:
            return rng.random() < _ONLY_ANSWER
        return rng.random() < min(counts) / max(min(counts), self._answers[source, kind, str(answer)])


def _drawn_from(known: TrackLabels) -> tuple[tuple[str, Sequence[str], Sequence[str]], ...]:
    """Kinds of names that are drawn for yes/no questions: what is there, what is missing."""
    guessed = ("guessed", known.guessed("instrument"), known.doubted("instrument"))
    return ("presence", known.present, known.missing), guessed
