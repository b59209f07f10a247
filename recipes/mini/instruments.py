"""The one table from General MIDI programs to plain instrument names, and what a soloist can play."""

from __future__ import annotations

from dataclasses import dataclass

DRUMS = "drums"
"""Name given to a drum kit in `labels.instruments`."""
HAND_PERCUSSION = "hand percussion"
"""Name given to drum-channel sounds that are no kit: congas, tambourine, shaker and the like."""

# First program, last program, plain name. Programs left out (orchestra hit, sound effects) have no name.
_RANGES: tuple[tuple[int, int, str], ...] = (
    (0, 3, "piano"),
    (4, 5, "electric piano"),
    (6, 6, "harpsichord"),
    (7, 7, "clavinet"),
    (8, 10, "bells"),
    (11, 11, "vibraphone"),
    (12, 13, "marimba or xylophone"),
    (14, 14, "bells"),
    (15, 15, "dulcimer"),
    (16, 18, "electric organ"),
    (19, 19, "church organ"),
    (20, 20, "harmonium"),
    (21, 21, "accordion"),
    (22, 22, "harmonica"),
    (23, 23, "accordion"),
    (24, 25, "acoustic guitar"),
    (26, 28, "electric guitar"),
    (29, 30, "distorted electric guitar"),
    (31, 31, "electric guitar"),
    (32, 32, "double bass"),
    (33, 37, "electric bass"),
    (38, 39, "synth bass"),
    (40, 40, "violin"),
    (41, 41, "viola"),
    (42, 42, "cello"),
    (43, 43, "double bass"),
    (44, 45, "strings"),
    (46, 46, "harp"),
    (47, 47, "timpani"),
    (48, 51, "strings"),
    (52, 54, "choir"),
    (56, 56, "trumpet"),
    (57, 57, "trombone"),
    (58, 58, "tuba"),
    (59, 59, "trumpet"),
    (60, 60, "French horn"),
    (61, 61, "brass section"),
    (62, 63, "synthesizer"),
    (64, 67, "saxophone"),
    (68, 68, "oboe"),
    (69, 69, "English horn"),
    (70, 70, "bassoon"),
    (71, 71, "clarinet"),
    (72, 73, "flute"),
    (74, 74, "recorder"),
    (75, 75, "pan flute"),
    (77, 77, "flute"),
    (78, 79, "whistle"),
    (80, 103, "synthesizer"),
    (104, 104, "sitar"),
    (105, 105, "banjo"),
    (106, 107, "koto"),
    (108, 108, "kalimba"),
    (109, 109, "bagpipes"),
    (110, 110, "violin"),
    (111, 111, "shawm"),
    (112, 112, "bells"),
    (114, 114, "steel drums"),
    (113, 113, HAND_PERCUSSION),
    (115, 119, HAND_PERCUSSION),
)
PLAIN_NAMES: dict[int, str] = {program: name for first, last, name in _RANGES for program in range(first, last + 1)}

ELECTRIC: frozenset[str] = frozenset(
    {
        "electric piano",
        "clavinet",
        "electric organ",
        "electric guitar",
        "distorted electric guitar",
        "electric bass",
        "synth bass",
        "synthesizer",
    }
)
"""Names that make an excerpt not acoustic."""

# Drum-channel keys: kick, snare, toms, hi-hats, cymbals. All other keys are hand percussion.
KIT_KEYS: frozenset[int] = frozenset({*range(35, 54), 55, 57, 59} - {39})


@dataclass(frozen=True)
class Soloist:
    """An instrument that can carry a tune alone."""

    name: str
    programs: tuple[int, ...]
    low: int
    high: int
    chords: bool = False
    """True where one player can also play chords below the tune (piano, organ, guitar ...)."""


SOLOISTS: tuple[Soloist, ...] = (
    Soloist("piano", (0, 1), 55, 84, chords=True),
    Soloist("harpsichord", (6,), 55, 84, chords=True),
    Soloist("church organ", (19,), 55, 84, chords=True),
    Soloist("accordion", (21,), 55, 84, chords=True),
    Soloist("acoustic guitar", (24, 25), 48, 76, chords=True),
    Soloist("electric guitar", (26, 27), 48, 76),
    Soloist("harp", (46,), 52, 84, chords=True),
    Soloist("violin", (40,), 55, 88),
    Soloist("cello", (42,), 38, 67),
    Soloist("trumpet", (56,), 55, 82),
    Soloist("trombone", (57,), 40, 70),
    Soloist("saxophone", (65, 66), 49, 80),
    Soloist("clarinet", (71,), 50, 86),
    Soloist("flute", (73,), 60, 93),
    Soloist("oboe", (68,), 58, 86),
    Soloist("banjo", (105,), 50, 79),
    Soloist("sitar", (104,), 48, 77),
    Soloist("vibraphone", (11,), 53, 86, chords=True),
)
