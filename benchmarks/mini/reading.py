"""Reads answers: yes or no, names, refusals, contradictions of labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mu_llama.musicqa.dialogues.track_labels import ASKABLE, FAMILIES, TrackLabels, are_near

INSTRUMENTS: tuple[str, ...] = (
    *ASKABLE, "drums", "hand percussion", "viola", "brass section", "French horn", "tuba", "recorder", "harmonica",
    "bassoon", "English horn", "marimba or xylophone", "marimba", "xylophone", "bells", "timpani", "synth bass",
    "harmonium", "koto", "clavinet", "whistle", "pan flute", "kalimba", "dulcimer", "shawm", "steel drums",
)  # fmt: skip
"""Names that answers hold."""
_REFUSAL = re.compile(
    r"\b(can't|cannot|can not|haven't|couldn't) (tell|hear|say|measured?)\b|\bcan't be heard\b", re.IGNORECASE
)


def named(text: str, names: Iterable[str] = INSTRUMENTS) -> set[str]:
    """Which of the names a text holds; a longer name hides a shorter one inside it.

    Example:
        >>> sorted(named("An electric guitar and a harp.", ["guitar", "electric guitar", "harp"]))
        ['electric guitar', 'harp']
    """
    matches = set()
    for name in sorted(set(names), key=len, reverse=True):
        pattern = re.compile(rf"\b{re.escape(name)}s?\b", re.IGNORECASE)
        if pattern.search(text):
            matches.add(name)
            text = pattern.sub("#", text)
    return matches


def yes_or_no(text: str) -> bool | None:
    """Read a yes/no answer; None if it is neither.

    Example:
        >>> yes_or_no("Yes, I hear drums."), yes_or_no("Probably not."), yes_or_no("A piano.")
        (True, False, None)
    """
    if re.match(r"\W*(yes|sure|probably(?! not)|there (is|are) (a|drums|singing|some))\b", text, re.IGNORECASE):
        return True
    if re.match(r"\W*(no\b|not\b|probably not|nobody|I don't|there (is|are) no\b)", text, re.IGNORECASE):
        return False
    return None


def says_voice(text: str) -> bool | None:
    """Whether an answer says that somebody sings.

    Example:
        >>> says_voice("No, it is instrumental."), says_voice("It is vocal music: somebody sings.")
        (False, True)
        >>> says_voice("Only a voice, without instruments.")
        True
    """
    if re.search(r"\b(isn't|not) instrumental\b", text, re.IGNORECASE):
        return True
    none = r"\b(nobody|no (voice|singing|vocals|one)|without (a )?(voice|vocals|singing)|don't hear)\b|instrumental"
    if re.search(none, text, re.IGNORECASE):
        return False
    said = re.search(r"\b(sings|singing|vocals?|voices?|choir)\b", text, re.IGNORECASE)
    return True if said and yes_or_no(text) is not False else yes_or_no(text)


def refuses(text: str) -> bool:
    """Whether an answer says that it can't tell.

    Example:
        >>> refuses("I can't tell who made it from listening."), refuses("I don't hear drums.")
        (True, False)
    """
    return bool(_REFUSAL.search(text))


def denies_music(text: str) -> bool:
    """Whether an answer says that there is no music.

    Example:
        >>> denies_music("I hear no music, only noise."), denies_music("A piece of music.")
        (True, False)
    """
    return bool(re.search(r"\bno music\b|\b(isn't|not) music\b", text, re.IGNORECASE))


def contradictions(text: str, known: TrackLabels) -> list[str]:
    """What a description claims against the labels: instruments, voices or drums that are ruled out."""
    wrong = []
    if known.lists_all_instruments:
        present = set(known.instruments) | set(known.sure("faint"))
        for name in named(_without_denials(text)):
            member = present & FAMILIES.get(name, frozenset((name,)))
            alike = not known.is_solo and any(are_near(name, other) for other in present)
            if not member and not alike:
                wrong.append(name)
    claimed = _without_denials(text)
    if known.has_voice is False and re.search(r"\b(voices?|sings|vocals|choir)\b", claimed, re.IGNORECASE):
        wrong.append("voice")
    if known.has_voice is True and says_voice(text) is False:
        wrong.append("no voice")
    if known.has_drums is True and re.search(r"no drums", text, re.IGNORECASE):
        wrong.append("no drums")
    return wrong


def _without_denials(text: str) -> str:
    """Leave out sentences that say what isn't there."""
    sentences: Sequence[str] = re.split(r"(?<=[.!?])\s+", text)
    return " ".join(
        part for part in sentences if not re.search(r"\b(no|not|don't|nobody|without)\b", part, re.IGNORECASE)
    )
