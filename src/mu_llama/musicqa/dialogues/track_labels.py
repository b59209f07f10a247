"""Labels of a track as questions need them, and counts over a corpus that keep yes and no even."""

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
    """View of a track's labels: what questions and descriptions may say.

    Categories of `Track.tags` that are read here, besides those of the vocabulary: `instrument` is ordered from the
    loudest to the softest; `lead` plays the melody; `ensemble` is solo, duo, band, choir, orchestra or a quartet;
    `sound` is speech or noise where there is no music; `production` is acoustic or electric; `era` and `use` are
    copied into answers. `energy` (low, medium, high) and `valence` (dark, neutral, bright) stand among the guesses.
    `clear` lists what an audio tagger is sure of ("piano", "solo", "no drums"); a track that has it is described by
    that alone.
    """

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
        """True instruments, the loudest first."""
        return self.sure("instrument")

    def is_clear(self, word: str) -> bool:
        """Whether a description may state a label: it is clear, or the track has no clear labels listed."""
        return "clear" not in self.track.tags or word in self.track.tags["clear"]

    @property
    def clear_instruments(self) -> tuple[str, ...]:
        """True instruments that a description may name, the loudest first."""
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
    def plays_drums(self) -> bool | None:
        """Whether drums play, by labels or else a tagger."""
        if self.has_drums is not None:
            return self.has_drums
        return (
            True if "drums" in self.guessed("instrument") else False if "drums" in self.doubted("instrument") else None
        )

    @property
    def yes_or_no(self) -> Mapping[str, tuple[bool, bool]]:
        """Answers that are balanced over a corpus, each with whether it is a guess."""
        answers = {"drums": (self.plays_drums, self.has_drums), "voice": (self.sings, self.has_voice)}
        for kind, category, name in (("solo", "ensemble", "solo"), ("acoustic", "production", "acoustic")):
            label = None if self.one(category) is None else self.one(category) == name
            answers[kind] = (label, label)
        return {kind: (answer, label is None) for kind, (answer, label) in answers.items() if answer is not None}

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
        present = set(self.instruments) | set(self.sure("faint"))
        near = present.union(*(group for group in _NEAR if group & present))
        absent = [name for name in ASKABLE if name not in FAMILIES and name not in near]
        families = [name for name, members in FAMILIES.items() if not members & present and name not in near]
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
    """Counts of answers over a corpus, and draws that keep yes and no even.

    All is balanced within each source (`Track.source`), so that the kind of music doesn't give the answer away:
    bands that mostly have drums and solos that never do would teach that bands have drums.

    Args:
        tracks: the corpus; where it is empty, nothing is balanced.
    """

    def __init__(self, tracks: Iterable[Track] = ()) -> None:
        self._yes: Counter[tuple[str, str, str]] = Counter()
        self._no: Counter[tuple[str, str, str]] = Counter()
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self.genres: Counter[str] = Counter()
        """Genres of the corpus, labels and guesses, by how often each is a track's."""
        corpus = [TrackLabels(track) for track in tracks]
        for labels in corpus:
            self._count(labels)
        self._max_weight: dict[tuple[str, str], float] = {}
        for labels in corpus:
            for kind, present, missing in _names_to_draw(labels):
                key = labels.track.source, kind
                self._max_weight[key] = max(self._max_weight.get(key, 0.0), sum(self._weights(*key, present, missing)))

    def _count(self, labels: TrackLabels) -> None:
        source = labels.track.source
        for kind, present, missing in _names_to_draw(labels):
            self._yes.update((source, kind, name) for name in present)
            self._no.update((source, kind, name) for name in missing)
        for name in labels.genres:
            self.genres[name] += 1 / len(labels.genres)  # type: ignore[assignment]
        for kind, (answer, _) in labels.yes_or_no.items():
            self._answers[source, kind, str(answer)] += 1
        for kind in ("energy", "valence"):
            self._answers.update((source, kind, level) for level in labels.guessed(kind))

    def affirmed(self, source: str, kind: str, name: str) -> int:
        """Count the tracks of a source that have a name."""
        return self._yes[source, kind, name]

    def draw(
        self, source: str, kind: str, present: Sequence[str], missing: Sequence[str], rng: random.Random
    ) -> tuple[str, bool] | None:
        """Choose a name to ask about, so that over a source each is affirmed as often as it is denied.

        A track is passed over with a probability that grows as the sum of its names' weights falls: otherwise frequent
        names, whose weights are small, would be asked about too often on tracks that have no rare one.

        Returns:
            The name and whether it is present; None where there is nothing to ask or the track is passed over.
        """
        names = [(name, True) for name in present] + [(name, False) for name in missing]
        weights = self._weights(source, kind, present, missing)
        if not names or rng.random() * self._max_weight.get((source, kind), 0.0) > sum(weights):
            return None
        return rng.choices(names, weights)[0]

    def _weights(self, source: str, kind: str, present: Sequence[str], missing: Sequence[str]) -> list[float]:
        return [
            self._weight(source, kind, name, is_present)
            for names, is_present in ((present, True), (missing, False))
            for name in names
        ]

    def _weight(self, source: str, kind: str, name: str, is_present: bool) -> float:
        """Weigh a name: 1 for its rarer answer, the ratio of counts for the other, little where one never occurs."""
        yes, no = self._yes[source, kind, name], self._no[source, kind, name]
        count = yes if is_present else no
        return max(min(yes, no) / count, _ONE_SIDED) if count else 1.0

    def draw_genre(self, names: Sequence[str], rng: random.Random) -> str | None:
        """Choose among genres by how often the corpus has them; None if it has none of them."""
        weights = [float(self.genres[name]) for name in names]
        return rng.choices(names, weights)[0] if sum(weights) else None

    def is_open(self, source: str, kind: str) -> bool:
        """Whether both answers are frequent in a source: the rarer one is a fifth of all at least."""
        counts = [count for (where, of, _), count in self._answers.items() if (where, of) == (source, kind)]
        return len(counts) > 1 and min(counts) >= _CONTESTED * sum(counts)

    def keeps(self, source: str, kind: str, answer: object, rng: random.Random) -> bool:
        """Decide whether a question with this answer is asked: the rarest answer of a source always, others as often.

        In a source with only one answer it is asked a tenth of the time.
        """
        counts = [count for (where, of, _), count in self._answers.items() if (where, of) == (source, kind)]
        if not counts:
            return True
        if len(counts) == 1:
            return rng.random() < _ONLY_ANSWER
        return rng.random() < min(counts) / max(min(counts), self._answers[source, kind, str(answer)])


def _names_to_draw(labels: TrackLabels) -> tuple[tuple[str, Sequence[str], Sequence[str]], ...]:
    """Give the names that yes/no questions draw from, by kind: those present and those missing."""
    guessed = ("guessed", labels.guessed("instrument"), labels.doubted("instrument"))
    return ("presence", labels.present, labels.missing), guessed
