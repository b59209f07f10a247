"""Small English grammar for labels: articles and lists."""

from __future__ import annotations

from collections.abc import Sequence

# Names that take no article: plurals and what can't be counted.
_BARE = frozenset(
    ("drums", "strings", "bowed strings", "percussion", "hand percussion", "brass", "woodwinds", "bells", "claps",
     "bongos", "congas", "timpani", "turntables", "bagpipes", "steel drums", "rap vocals", "spoken word",
     "opera singing", "whistling", "beatboxing", "tabla", "taiko")
)  # fmt: skip
_PROPER = {"french horn": "French horn"}
# Sounds of first letters, not letters.
_AN = ("a", "e", "i", "o", "8-", "hour", "honest", "mbira", "r&b", "edm", "idm")
_NOT_AN = ("uku", "uni", "eu", "one", "use")


def a(noun: str) -> str:
    """Put the indefinite article in front of a noun phrase that takes one.

    Example:
        >>> a("electric guitar"), a("ukulele"), a("drums"), a("upbeat song")
        ('an electric guitar', 'a ukulele', 'drums', 'an upbeat song')
    """
    noun = _PROPER.get(noun, noun)
    if noun in _BARE:
        return noun
    vowel = noun.startswith((*_AN, "u")) and not noun.startswith(_NOT_AN)
    return f"{'an' if vowel else 'a'} {noun}"


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    Example:
        >>> listed(["a piano"]), listed(["a piano", "drums"]), listed(["a piano", "drums", "strings"])
        ('a piano', 'a piano and drums', 'a piano, drums and strings')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def capital(text: str) -> str:
    """Begin with a capital letter, leaving the rest."""
    return text[:1].upper() + text[1:]
