"""Questions that measured facts answer, and the line that carries the facts into a prompt."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mu_llama.audio.facts import Facts, measure_facts
from mu_llama.audio.source import AudioSource
from mu_llama.audio.waveform import Waveform
from mu_llama.errors import MuLlamaError

logger = logging.getLogger(__name__)

_WHOLE = r"(it|this|that|the (track|song|piece|recording|music|audio|clip|file))"


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


TOPICS: Mapping[str, re.Pattern[str]] = {
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
"""What a question asks for, by the name of the fact."""
_WRITTEN = _any(r"\b(caption|description|prompt)\b", r"\bdescribe (the|this) (audio|music|track|song|clip)\b")

SURE_FROM = 0.8
"""Confidence from which a measured value is stated plainly."""


@dataclass(frozen=True)
class Measured:
    """A measured value in words."""

    text: str
    """Value with its unit: `120 BPM`, `A minor`."""
    confidence: float = 1.0
    """From 0 to 1."""

    @property
    def is_sure(self) -> bool:
        """Whether it is stated plainly."""
        return self.confidence >= SURE_FROM


def in_words(facts: Facts) -> dict[str, Measured]:
    """Put measured facts into words, by topic; what wasn't measured is left out.

    Example:
        >>> in_words(Facts(205.4, None, None, None))["duration"].text
        '3:25 minutes'
    """
    words = {"duration": Measured(f"{int(facts.duration_s // 60)}:{int(facts.duration_s % 60):02d} minutes")}
    if (tempo := facts.tempo_bpm) is not None:
        words["tempo"] = Measured(f"{float(tempo.value):.0f} BPM", tempo.confidence)
    if (key := facts.key) is not None:
        words["key"] = Measured(str(key.value), key.confidence)
    if (level := facts.loudness_lufs) is not None:
        words["loudness"] = Measured(f"{float(level.value):.1f} LUFS", level.confidence)
    return words


def measure_in_words(
    audio: AudioSource | Waveform, *, offset_s: float, duration_s: float | None
) -> dict[str, Measured]:
    """Measure a track for a prompt; where it can't be done, say why in the log and give nothing."""
    try:
        return in_words(measure_facts(audio, offset_s=offset_s, duration_s=duration_s))
    except (MuLlamaError, OSError, ValueError) as error:
        logger.warning("tempo and key are not measured: %s", error)
        return {}


def topics_of(question: str) -> tuple[str, ...]:
    """Names of the facts that a question asks for.

    Example:
        >>> topics_of("What are the tempo and the key?")
        ('tempo', 'key')
        >>> topics_of("Is there a keyboard?"), topics_of("Describe the fast part in one sentence")
        ((), ())
    """
    if _WRITTEN.search(question):
        return ()
    return tuple(name for name, pattern in TOPICS.items() if pattern.search(question))


def with_measured(question: str, facts: Mapping[str, Measured]) -> str:
    """Put what was measured under a question, as the model was trained to read it.

    Example:
        >>> print(with_measured("How fast is it?", {"tempo": Measured("120 BPM", confidence=0.5)}))
        How fast is it?
        Measured: tempo 120 BPM (unsure)
    """
    if not facts:
        return question
    values = "; ".join(f"{name} {fact.text}{'' if fact.is_sure else ' (unsure)'}" for name, fact in facts.items())
    return f"{question}\nMeasured: {values}"
