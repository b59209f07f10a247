"""Keeps yes and no even, so that a question's words alone don't tell the answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from mu_llama.musicqa.dialogues.knowledge import Knowledge
from mu_llama.records import Track


class Balance:
    """How often each yes/no question could be answered either way over a corpus.

    Args:
        tracks: the corpus; where it is empty, nothing is evened out.
    """

    def __init__(self, tracks: Iterable[Track] = ()) -> None:
        self._counts: Counter[tuple[str, str, bool]] = Counter()
        self._levels: Counter[tuple[str, str]] = Counter()
        for track in tracks:
            self._count(Knowledge(track))

    def _count(self, known: Knowledge) -> None:
        named: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
            ("presence", known.present, known.missing),
            ("guessed", known.guessed("instrument"), known.doubted("instrument")),
            ("style", known.guessed("genre"), known.doubted("genre")),
            ("choice", known.present, ()),
        )
        for kind, there, missing in named:
            self._counts.update((kind, name, True) for name in there)
            self._counts.update((kind, name, False) for name in missing)
        for kind in ("energy", "valence"):
            self._levels.update((kind, level) for level in known.guessed(kind))
        for kind, answer in (("drums", known.has_drums), ("voice", known.has_voice)):
            if answer is not None:
                self._counts[kind, kind, answer] += 1

    def draw(
        self, kind: str, there: Sequence[str], missing: Sequence[str], rng: random.Random
    ) -> tuple[str, bool] | None:
        """Choose a name to ask about: over the corpus, yes and no come about equally often for each name."""
        candidates = [(name, True) for name in there] + [(name, False) for name in missing]
        if not candidates:
            return None
        weights = [1.0 / max(1, self._counts[kind, name, answer]) for name, answer in candidates]
        return rng.choices(candidates, weights)[0]

    def keeps(self, kind: str, answer: bool, rng: random.Random) -> bool:
        """Whether a question whose answer is the frequent one is asked all the same."""
        own, other = self._counts[kind, kind, answer], self._counts[kind, kind, not answer]
        return own <= other or rng.random() < max(other, 1) / max(own, 1)

    def keeps_level(self, kind: str, level: str, rng: random.Random) -> bool:
        """Whether a question whose answer is one of several levels is asked: the rarest always, others as often."""
        rarest = min((count for (of, _), count in self._levels.items() if of == kind), default=1)
        return rng.random() < rarest / max(rarest, self._levels[kind, level])
