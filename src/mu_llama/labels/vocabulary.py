"""Words for instruments, genres, voices, tempi and moods, found in tags and sentences."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

CATEGORIES = ("genre", "instrument", "voice", "mood", "tempo", "other")
"""Of tags; a vocabulary has no terms of the last."""

# Genres named like other words count in sentences only before one of these.
_CONTEXTS = ("music", "song", "track", "tune", "piece", "style", "beat", "genre", "feel", "ballad", "record")


_WORD = re.compile(r"[^\W_]+(?:['&][^\W_]+)*|&")


@dataclass(frozen=True)
class Term:
    """An instrument, genre, voice, tempo or mood."""

    name: str
    """As it is written in sentences."""
    category: str
    """One of `CATEGORIES`."""
    broader: frozenset[str]
    """Names of all broader terms."""


@dataclass(frozen=True)
class Mention:
    """A term in a text."""

    term: Term
    """The term."""
    start: int
    """Index of its first character in the text."""
    end: int
    """Index behind its last character."""


@cache
def terms() -> dict[str, Term]:
    """All terms by name, from `vocabulary.tsv` (a `*` marks words that count only as a whole tag)."""
    rows = list(_rows())
    direct = {_plain(row["term"]): _split(row["broader"]) for row in rows}

    def closure(name: str) -> set[str]:
        all_broader: set[str] = set()
        for broader in direct[name]:
            all_broader |= {broader} | closure(broader)
        return all_broader

    return {
        name: Term(name, row["category"], frozenset(closure(name))) for row in rows for name in [_plain(row["term"])]
    }


def find_mentions(text: str) -> list[Mention]:
    """Find the terms that a sentence names, the longest at each place.

    Example:
        >>> [mention.term.name for mention in find_mentions("Soft female vocals over an e-guitar.")]
        ['female voice', 'electric guitar']
    """
    in_sentences, _ = _spellings()
    first_words = _first_words()
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter whose small form is two
        lowered = text
    words = _WORD.findall(lowered)
    begins = [index for index, word in enumerate(words) if word in first_words]
    if not begins:
        return []
    spans = [match.span() for match in _WORD.finditer(lowered)]
    mentions, free = [], 0
    for index in begins:
        if index < free:
            continue
        for count in range(_longest_run(text, spans, index, first_words[words[index]]), 0, -1):
            term = in_sentences.get(" ".join(words[index : index + count]))
            start, end = spans[index][0], spans[index + count - 1][1]
            if term is not None and not _is_part(text, start, end):
                mentions.append(Mention(term, start, end))
                free = index + count
                break
    return mentions


def _longest_run(text: str, spans: list[tuple[int, int]], index: int, max_words: int) -> int:
    """Count the words from `index` on, at most `max_words`, with only spaces and hyphens between them."""
    count = 1
    while (
        count < max_words
        and index + count < len(spans)
        and not text[spans[index + count - 1][1] : spans[index + count][0]].strip(" -\n\t")
    ):
        count += 1
    return count


def _is_part(text: str, start: int, end: int) -> bool:
    """Whether a place is part of a compound, like the piano of `piano-like`."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (before[-1:] == "-" and before[:1].isalnum()) or (after[:1] == "-" and after[1:].isalnum())


@lru_cache(maxsize=65536)
def terms_of_tag(tag: str) -> tuple[Term, ...]:
    """Give the terms that a tag means, a whole one or a phrase around them.

    Example:
        >>> [term.name for term in terms_of_tag("house")], [term.name for term in terms_of_tag("mellow piano melody")]
        (['house'], ['relaxing', 'piano'])
    """
    _, whole = _spellings()
    exact = whole.get(_key(tag.strip()))
    if exact is not None:
        return (exact,)
    return tuple(dict.fromkeys(mention.term for mention in find_mentions(tag)))


@cache
def _spellings() -> tuple[dict[str, Term], dict[str, Term]]:
    """Spelling to term, in sentences and as whole tags."""
    in_sentences: dict[str, Term] = {}
    whole: dict[str, Term] = {}
    known = terms()
    for row in _rows():
        term = known[_plain(row["term"])]
        for spelling in [row["term"], *_split(row["spellings"])]:
            plain = _key(_plain(spelling))
            whole.setdefault(plain, term)
            if not spelling.startswith("*"):
                in_sentences.setdefault(plain, term)
            elif row["term"] == spelling and term.category == "genre":
                for context in _CONTEXTS:
                    in_sentences.setdefault(f"{plain} {context}", term)
    return in_sentences, whole


@cache
def _first_words() -> dict[str, int]:
    """First word of a spelling to the number of words of the longest one that begins so."""
    max_words: dict[str, int] = {}
    for spelling in _spellings()[0]:
        words = spelling.split(" ")
        max_words[words[0]] = max(max_words.get(words[0], 0), len(words))
    return max_words


def _key(text: str) -> str:
    """The words of a spelling, as `find_mentions` reads them."""
    return " ".join(match[0].lower() for match in _WORD.finditer(text))


def _plain(spelling: str) -> str:
    return spelling.removeprefix("*")


def _split(cell: str | None) -> list[str]:
    return [part for part in (cell or "").split(",") if part]


def _rows() -> Iterator[dict[str, str]]:
    text = resources.files("mu_llama.labels").joinpath("vocabulary.tsv").read_text(encoding="utf-8")
    return iter(csv.DictReader(text.splitlines(), delimiter="\t"))


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    Example:
        >>> listed(["a piano"]), listed(["a piano", "drums"]), listed(["a piano", "drums", "strings"])
        ('a piano', 'a piano and drums', 'a piano, drums and strings')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
