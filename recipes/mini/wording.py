"""Small pieces of English: articles, lists, and the tagger's words in plain ones."""

from __future__ import annotations

from collections.abc import Sequence

PLURAL = {"strings", "drums", "bells", "bagpipes", "steel drums"}
MASS = {"hand percussion", "timpani"}

# Tagger tag -> what it says of the music. Only tags whose meaning is plain; each is a guess, and worded as one.
GENRES = {
    "msd:rock": "rock", "msd:pop": "pop", "msd:jazz": "jazz", "msd:metal": "metal", "msd:electronic": "electronic",
    "msd:folk": "folk", "msd:punk": "punk", "msd:blues": "blues", "msd:ambient": "ambient",
    "msd:experimental": "experimental", "msd:Hip-Hop": "hip-hop", "msd:country": "country", "msd:funk": "funk",
    "msd:House": "house", "msd:hard rock": "hard rock", "msd:heavy metal": "heavy metal", "msd:electro": "electro",
    "mtt:classical": "classical", "mtt:classic": "classical", "mtt:techno": "techno", "mtt:indian": "Indian",
    "mtt:opera": "opera", "mtt:new age": "new age", "mtt:country": "country", "mtt:metal": "metal",
    "mtt:rock": "rock", "mtt:dance": "dance", "mtt:electronic": "electronic", "mtt:ambient": "ambient",
}  # fmt: skip
MOODS = {
    "msd:Mellow": "mellow", "msd:chillout": "relaxed", "msd:chill": "relaxed", "msd:beautiful": "beautiful",
    "msd:sad": "sad", "msd:happy": "happy", "msd:party": "lively", "msd:dance": "danceable", "mtt:slow": "slow",
    "mtt:fast": "fast", "mtt:loud": "loud", "mtt:quiet": "quiet", "mtt:soft": "soft", "mtt:ambient": "calm",
    "msd:ambient": "calm", "msd:metal": "aggressive", "mtt:weird": "strange", "mtt:beat": "rhythmic",
}  # fmt: skip
INSTRUMENTS = {
    "mtt:guitar": "guitar", "mtt:strings": "strings", "mtt:drums": "drums", "mtt:piano": "piano",
    "mtt:violin": "violin", "mtt:synth": "synthesizer", "mtt:flute": "flute", "mtt:harpsichord": "harpsichord",
    "mtt:sitar": "sitar", "mtt:harp": "harp", "mtt:cello": "cello", "mtt:choir": "choir",
}  # fmt: skip
BEAT_TAGS = ("mtt:drums", "mtt:beat", "mtt:beats", "mtt:techno", "mtt:rock", "mtt:metal", "msd:metal", "msd:rock")
VOICE_TAGS = ("mtt:vocal", "mtt:vocals", "mtt:singing", "mtt:voice", "mtt:female", "mtt:male", "mtt:woman",
              "mtt:man", "mtt:choir", "mtt:choral", "mtt:female voice", "mtt:male voice")  # fmt: skip


def with_article(name: str) -> str:
    """Put a or an in front of a name where English wants one.

    Example:
        >>> with_article("oboe"), with_article("drums")
        ('an oboe', 'drums')
    """
    if name in PLURAL or name in MASS:
        return name
    return ("an " if name[0].lower() in "aeiou" else "a ") + name


def is_plural(name: str) -> bool:
    """Whether a verb after the name is plural."""
    return name in PLURAL


def listed(names: Sequence[str], *, article: bool = True) -> str:
    """Join names with commas and an and.

    Example:
        >>> listed(["piano", "oboe", "drums"])
        'a piano, an oboe and drums'
    """
    words = [with_article(name) if article else name for name in names]
    if len(words) <= 1:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def capital(text: str) -> str:
    """Make the first letter a capital one."""
    return text[:1].upper() + text[1:]
