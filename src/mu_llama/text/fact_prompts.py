"""Which measured facts a question asks for, and the prompt line that states them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_WHOLE = r"(it|this|that|the (track|song|piece|recording|music|audio|clip|file))"


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


FACT_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "tempo": _any(
        r"\b(tempo|bpms?|beats (per|a|each) minute|how (fast|slow|quick)|speed|pace)\b",
        rf"\b(is|was|call) {_WHOLE}( (a|an|rather|very))* (slow|fast)\b",
        r"\b(slow|fast) or (slow|fast)\b",
        r"\bis this (slow|fast) music",
    ),
    "key": _any(
        r"\b(what|which|the|musical|home) keys?\b(?! (element|feature|part|instrument|role|moment|point|word|change))",
        r"\bkeys? (is|are) (it|this)\b",
        r"^\W*keys?\W*$",
        r"\bkey,? please\b",
        r"\btonality\b|\btonic\b|\bkey signature\b",
        r"\bmajor or (a )?minor\b|\bminor or (a )?major\b|\bin (a )?(major|minor)\b",
    ),
    "loudness": _any(rf"\bhow loud (is|was) {_WHOLE}", r"\bloudness\b", r"\blufs\b"),
    "duration": _any(
        rf"\bhow long (is|was|does|did) {_WHOLE}",
        r"\bduration\b",
        r"\b(the|what|its|total) length\b",
        r"\bhow many (minutes|seconds)\b",
    ),
}
"""Patterns of questions, by the name of the fact that they ask for."""
_DESCRIPTION = _any(r"\b(caption|description|prompt)\b", r"\bdescribe (the|this) (audio|music|track|song|clip)\b")

SURE_FROM = 0.8
"""Lowest confidence at which a measured value is stated without `(unsure)`."""


@dataclass(frozen=True)
class MeasuredFact:
    """A measured value as text."""

    text: str
    """Value with its unit: `120 BPM`, `A minor`."""
    confidence: float = 1.0
    """From 0 to 1."""

    @property
    def is_sure(self) -> bool:
        """Whether it is stated without `(unsure)`."""
        return self.confidence >= SURE_FROM


def topics_of(question: str) -> tuple[str, ...]:
    """Names of the facts that a question asks for.

    Example:
        >>> topics_of("What are the tempo and the key?")
        ('tempo', 'key')
        >>> topics_of("Is there a keyboard?"), topics_of("Describe the fast part in one sentence")
        ((), ())
    """
    if _DESCRIPTION.search(question):
        return ()
    return tuple(name for name, pattern in FACT_PATTERNS.items() if pattern.search(question))


def with_measured(question: str, facts: Mapping[str, MeasuredFact]) -> str:
    """Append the line of measured facts to a question, in the format of the training data.

    Example:
        >>> print(with_measured("How fast is it?", {"tempo": MeasuredFact("120 BPM", confidence=0.5)}))
        How fast is it?
        Measured: tempo 120 BPM (unsure)
    """
    if not facts:
        return question
    values = "; ".join(f"{name} {fact.text}{'' if fact.is_sure else ' (unsure)'}" for name, fact in facts.items())
    return f"{question}\nMeasured: {values}"
