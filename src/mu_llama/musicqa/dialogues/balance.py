"""Keeps yes and no even, so that a question's words alone don't tell the answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues.knowledge import TrackLabels

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
