"""English for labels: articles, lists, and slots of sentences; and which language a text is in (py3langid)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from mu_llama.errors import ConfigError
from mu_llama.labels.grounding import Labels, negates
from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import listed, terms

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


def capital(text: str) -> str:
    """Begin with a capital letter, leaving the rest."""
    return text[:1].upper() + text[1:]


_MAX_INSTRUMENTS, _MAX_MOODS, _MAX_OTHERS = 5, 3, 4
_SLOW_BELOW_BPM, _FAST_ABOVE_BPM = 90.0, 130.0
_CAPITALS = {"r&b": "R&B", "edm": "EDM", "idm": "IDM", "k-pop": "K-pop", "indian music": "Indian music",
             "christmas music": "Christmas music", "latin": "Latin", "celtic": "Celtic"}  # fmt: skip
# Genres that are pieces themselves, and those that are adjectives.
_PIECES = frozenset(("ballad", "opera", "soundtrack", "waltz", "polka", "march", "lullaby", "tango"))
_ADJECTIVES = frozenset(
    ("orchestral", "classical", "electronic", "experimental", "Celtic", "Latin", "ambient", "baroque",
     "romantic classical", "industrial", "acoustic", "dance", "singer-songwriter", "lo-fi")
)  # fmt: skip
_NOUNS = ("track", "piece", "composition")
# Slots that sentences begin with, written with a capital letter there.
_BEGINNING = ("a_piece", "instruments", "voice", "moods")
_VOICES = {"voice": "vocals", "child voice": "a child's voice"}
_ABSENT = ("drums", "piano", "guitar", "violin", "saxophone", "flute", "organ", "trumpet")


@dataclass(frozen=True)
class SentenceSlots:
    """Slots and what they hold, and the label names behind them."""

    slots: Mapping[str, str]
    """For `str.format`; only what is known."""
    instruments: tuple[str, ...]
    """Names, the narrowest."""
    names: Mapping[str, tuple[str, ...]]
    """Label names by category, the narrowest."""
    absent: tuple[str, ...]
    """Instruments that labels rule out."""
    has_voice: bool | None
    """None where nothing is known."""


def words_of(track: Track, labels: Labels, uses: Mapping[str, Sequence[str]], rng: random.Random) -> SentenceSlots:
    """Put labels into words.

    Args:
        track: for its facts and loose tags.
        labels: of the track.
        uses: what music of a mood is used for.
        rng: chooses among equals; the same source gives the same words.
    """
    names = _narrowest(labels, rng)
    slots: dict[str, str] = {}
    instruments = names.get("instrument", ())[:_MAX_INSTRUMENTS]
    if instruments:
        slots["instruments"] = listed([a(name) for name in instruments])
    moods = names.get("mood", ())[:_MAX_MOODS]
    if moods:
        slots |= {"mood": moods[0], "moods": listed(moods), "a_mood": a(moods[0])}
        fitting = [use for mood in moods for use in uses.get(mood, ())]
        if fitting:
            slots["uses"] = rng.choice(fitting)
    voices = names.get("voice", ())
    if voices:
        slots["voice"] = listed([_VOICES.get(name) or a(name) for name in voices[:2]])
        slots["sounds"] = listed([slots["voice"], *(a(name) for name in instruments)])
    slots |= _pace(labels, names) | _key(track)
    genres = [_CAPITALS.get(name, name) for name in names.get("genre", ())]
    slots |= _genre(genres, moods, rng)
    others = [tag for tag in track.tags.get("other", ()) if not negates(tag)][:_MAX_OTHERS]
    if others:
        slots["others"] = listed([f'"{tag}"' for tag in others])
    slots |= {capital(name): capital(slots[name]) for name in _BEGINNING if name in slots}
    return SentenceSlots(
        slots,
        instruments,
        names,
        absent=tuple(name for name in _ABSENT if name in labels.absent),
        has_voice=True if voices else (False if "voice" in labels.absent else None),
    )


def _narrowest(labels: Labels, rng: random.Random) -> dict[str, tuple[str, ...]]:
    """Label names by category in random order, without those that another one makes clear."""
    known = terms()
    implied: set[str] = set().union(*(known[name].broader for name in labels.named))
    by_category: dict[str, list[str]] = {}
    for name in sorted(labels.named - implied):
        by_category.setdefault(known[name].category, []).append(name)
    for category_names in by_category.values():
        rng.shuffle(category_names)
    return {category: tuple(names) for category, names in by_category.items()}


def pace_of(bpm: float) -> str:
    """Slow, medium or fast.

    Example:
        >>> pace_of(60), pace_of(100), pace_of(150)
        ('slow', 'medium', 'fast')
    """
    return "slow" if bpm < _SLOW_BELOW_BPM else "fast" if bpm > _FAST_ABOVE_BPM else "medium"


def _pace(labels: Labels, names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    bpm = labels.tempo_bpm
    if bpm is not None:
        return {"pace": pace_of(bpm), "bpm": f"{bpm:.0f}"}
    paces = names.get("tempo", ())
    # Labels that name two tempi say nothing sure.
    return {"pace": paces[0].removesuffix(" tempo")} if len(paces) == 1 else {}


def _key(track: Track) -> dict[str, str]:
    key = track.facts.get("key")
    return {"key": key} if isinstance(key, str) else {}


def _genre(genres: Sequence[str], moods: Sequence[str], rng: random.Random) -> dict[str, str]:
    """The slots genre (`classical music`) and a_piece (`a calm classical piece`)."""
    noun, mood = rng.choice(_NOUNS), (f"{moods[0]} " if moods and rng.random() < 0.7 else "")
    if not genres:
        return {"a_piece": a(f"{moods[0]} {noun}")} if moods else {}
    genre = genres[0]
    if genre in _PIECES:
        return {"a_piece": a(f"{mood}{genre}")}
    mass = f"{genre} music" if genre in _ADJECTIVES else genre
    piece = f"{mood}{noun} of {genre}" if genre.endswith("music") else f"{mood}{genre} {noun}"
    return {"genre": mass, "a_piece": a(piece)}


def check_installed() -> None:
    """Check that languages can be detected.

    Raises:
        ConfigError: if py3langid isn't installed.
    """
    _library()


def language_of(text: str) -> str:
    """Give the ISO 639-1 code of a text's language; sure from about ten words on.

    Raises:
        ConfigError: if py3langid isn't installed.

    Example:
        >>> language_of("A calm piece for piano and strings, played slowly by a small ensemble.")
        'en'
    """
    return str(_library().classify(text)[0])


@cache
def _library() -> Any:
    try:
        import py3langid
    except ImportError as error:
        raise ConfigError("checking replies needs py3langid; run: pip install 'mu-llama[musicqa]'") from error
    return py3langid
