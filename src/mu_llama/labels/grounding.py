"""Whether a text about a track agrees with its labels: pure functions of both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import CATEGORIES, Mention, Term, find_mentions, listed, terms, terms_of_tag

CHECKED = ("instrument", "genre", "voice", "tempo")
"""Categories in which an answer may not contradict the labels."""

_DENIAL = (
    r"\b(?:no|not|non|without|nobody|nothing|never|neither|nor|lacks?|lacking|absence of|absent|missing|free of|"
    r"devoid of|instead of|rather than|cannot|aren't|isn't|doesn't|don't|there's no)\b"
)
_DENIES = re.compile(_DENIAL, re.IGNORECASE)
_DENIAL_FIRST = re.compile(r"\s*(?:no|not|non|without)\b", re.IGNORECASE)
# A denial reaches up to four words further, to the end of its clause.
_NEGATION = re.compile(_DENIAL + r"(?:[\s,]+\w[\w'&-]*){0,4}[\s,]*$", re.IGNORECASE)
# A denial behind what it denies: "drums are absent", "singing is not heard".
_ABSENT = re.compile(
    r"(?:[\s,]+\w+){0,2}\s+(?:is|are|was|were)(?:\s+\w+)?\s+(?:absent|missing|lacking)\b|"
    r"(?:\s+\w+){0,2}\s+(?:(?:is|are|was|were|can|could)(?:n't| not| never)|cannot)(?: be)?\s+"
    r"(?:heard|present|audible|there|used|played|included|featured|noticeable|detectable)\b",
    re.IGNORECASE,
)
# Where a negation ends.
_CLAUSE = re.compile(r"[.;:!?]|\b(?:but|while|although|though|however|except|only|and then)\b", re.IGNORECASE)
_ONLY = re.compile(r"\bno other (?:instruments?|sounds?)\b", re.IGNORECASE)
_NO_VOICE = re.compile(
    r"\b(?:instrumental|no (?:voices?|vocals?|singers?|singing|lyrics)|without (?:vocals|voices|singing))\b",
    re.IGNORECASE,
)
_BPM = re.compile(
    r"(?<![\w.])(\d{2,4}(?:\.\d+)?)\s*(?:bpm\b|beats per minute\b)|\btempo (?:of|is)(?: about| around)? (\d{2,4})\b",
    re.IGNORECASE,
)
_BPM_TOLERANCE = 0.05
_OCTAVES = (1.0, 2.0, 0.5, 3.0, 1 / 3)
_FAST_FROM_BPM, _SLOW_TO_BPM = 100.0, 110.0


@dataclass(frozen=True)
class Labels:
    """What is known about a track, in terms of the vocabulary."""

    named: frozenset[str]
    """Terms that labels name."""
    absent: frozenset[str]
    """Terms that labels rule out, with everything narrower."""
    known: frozenset[str]
    """Categories of which something is known."""
    tempo_bpm: float | None = None
    """Beats per minute, where stated or measured."""

    @cached_property
    def present(self) -> frozenset[str]:
        """Named terms with everything broader."""
        return self.named.union(*(terms()[name].broader for name in self.named))


def labels_of(track: Track) -> Labels:
    """Read a track's tags, caption and facts.

    Example:
        >>> labels = labels_of(Track("a", tags={"other": ("no drums", "violins", "slow tempo")}))
        >>> sorted(labels.named), sorted(labels.absent)[:2], sorted(labels.known)
        (['slow', 'violin'], ['drum machine', 'drums'], ['instrument', 'tempo'])
    """
    named: set[Term] = set()
    absent: set[Term] = set()
    for category in CATEGORIES:
        for tag in track.tags.get(category, ()):
            affirmed, denied = terms_said(tag, is_genre=category == "genre")
            named.update(affirmed)
            absent.update(denied)
    absent.update(terms()[name] for names in track.absent.values() for name in names if name in terms())
    for mention, negated in _read(track.caption or ""):
        (absent if negated else named).add(mention.term)
    tempo = track.facts.get("tempo_bpm")
    return _labels(named, absent, tempo_bpm=float(tempo) if isinstance(tempo, int | float) else None)


def contradictions(text: str, labels: Labels, *, strict: bool = False) -> list[str]:
    """Say what a text claims against its labels, in words; nothing if it agrees.

    A term in one of `CHECKED` that the text affirms must be among the labels of its category, or broader or narrower
    than one of them; in a category without labels anything goes unless `strict`, except what labels rule out. A
    term that the text denies must not be among the labels. A number of beats per minute must be near the known one,
    or a double or half of it.

    Args:
        text: an answer or a caption, not a question.
        labels: of its track.
        strict: refuse also what no label speaks of.

    Example:
        >>> labels = labels_of(Track("a", tags={"instrument": ("piano", "violin")}))
        >>> contradictions("A piano plays, and there are drums.", labels)
        ['names drums, but the labels name piano and violin']
        >>> contradictions("Strings and a grand piano.", labels)
        []
    """
    problems: list[str] = []
    sings = False
    for mention, negated in _read(text):
        sings = sings or (mention.term.category == "voice" and not negated)
        problem = _denied(mention.term, labels) if negated else _affirmed(mention.term, labels, strict=strict)
        if problem and problem not in problems:
            problems.append(problem)
    if not sings and _NO_VOICE.search(text) and "voice" in labels.present and not problems:
        problems.append("says that there is no voice, but the labels name one")
    return problems + list(_wrong_bpm(text, labels))


def _labels(named: set[Term], absent: set[Term], *, tempo_bpm: float | None) -> Labels:
    names = frozenset(term.name for term in named)
    ruled_out = {term.name for term in absent} - names
    narrower: set[str] = set()
    if ruled_out:
        narrower = {term.name for term in terms().values() if term.broader & ruled_out} - names
    known = {term.category for term in named | absent} | ({"tempo"} if tempo_bpm is not None else set())
    return Labels(names, frozenset(ruled_out | narrower), frozenset(known), tempo_bpm)


def _affirmed(term: Term, labels: Labels, *, strict: bool) -> str | None:
    if term.category not in CHECKED:
        return None
    if term.category == "tempo" and labels.tempo_bpm is not None:
        return _wrong_pace(term.name, labels.tempo_bpm)
    if term.name in labels.absent and term.name not in labels.present:
        return f"names {term.name}, which the labels rule out"
    supported = term.name in labels.present or bool(term.broader & labels.named)
    rivals = sorted(name for name in labels.named if terms()[name].category == term.category)
    if supported or (not rivals and not strict):
        return None
    return f"names {term.name}, but the labels name {listed(rivals) or 'nothing of the kind'}"


def _denied(term: Term, labels: Labels) -> str | None:
    if term.category in CHECKED and term.category != "tempo" and term.name in labels.present:
        return f"denies {term.name}, which the labels name"
    return None


def _wrong_pace(pace: str, bpm: float) -> str | None:
    if (pace == "fast" and bpm < _FAST_FROM_BPM) or (pace == "slow" and bpm > _SLOW_TO_BPM):
        return f"calls {bpm:g} beats per minute {pace}"
    return None


def _wrong_bpm(text: str, labels: Labels) -> Iterator[str]:
    for match in _BPM.finditer(text):
        said, known = float(match[1] or match[2]), labels.tempo_bpm
        if known is None:
            yield f"states {said:g} beats per minute, which no label says"
        elif not any(abs(said - known * octave) <= _BPM_TOLERANCE * known * octave for octave in _OCTAVES):
            yield f"states {said:g} beats per minute, but the labels say {known:g}"


@lru_cache(maxsize=65536)
def terms_said(tag: str, *, is_genre: bool = False) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """Give the terms that a tag names, and those that it denies.

    Args:
        tag: a word or phrase.
        is_genre: whether it stands among genres, where `instrumental` says nothing about voices.

    Example:
        >>> named, denied = terms_said("piano without drums")
        >>> [term.name for term in named], [term.name for term in denied]
        (['piano'], ['drums'])
    """
    no_voice = not is_genre and _NO_VOICE.search(tag) is not None
    denied = tuple(mention.term for mention in _negated(tag))
    if not (no_voice or denied or _DENIAL_FIRST.match(tag)):
        return terms_of_tag(tag), ()
    affirmed = () if _DENIAL_FIRST.match(tag) else [mention.term for mention, negated in _read(tag) if not negated]
    if no_voice:
        affirmed = [term for term in affirmed if term.category != "voice"]
        denied = tuple(dict.fromkeys((terms()["voice"], *denied)))
    return tuple(dict.fromkeys(affirmed)), denied


@lru_cache(maxsize=65536)
def negates(tag: str) -> bool:
    """Whether a tag says that something is not there, like `no drums`."""
    return _NO_VOICE.search(tag) is not None or _DENIAL_FIRST.match(tag) is not None or bool(_negated(tag))


def _negated(tag: str) -> tuple[Mention, ...]:
    return tuple(mention for mention, negated in _read(tag) if negated)


def _read(text: str) -> Iterable[tuple[Mention, bool]]:
    """Give each term that a text names, and whether it is denied there."""
    if "other" in text:
        text = _ONLY.sub(lambda match: "_" * len(match[0]), text)
    denies = _DENIES.search(text) is not None
    for mention in find_mentions(text):
        if not denies:
            yield mention, False
            continue
        before = text[: mention.start]
        clause = before[max((match.end() for match in _CLAUSE.finditer(before)), default=0) :]
        yield mention, _NEGATION.search(clause) is not None or _ABSENT.match(text[mention.end :]) is not None
