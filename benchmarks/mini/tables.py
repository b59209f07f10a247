"""Wordings that training never had, and which words count as saying a genre."""

from __future__ import annotations

UNSEEN = {
    "solo": ("Say which instrument is being played here.", "What is the soloist playing?"),
    "drums": ("Could you tell me whether any drums are in this recording?", "Any drumming going on here?"),
    "presence": ("Tell me whether {a_thing} is part of this recording.", "Would a listener notice {a_thing} in here?"),
    "voice": ("Could you tell me if a person is singing here?", "Any vocal part in this piece?"),
    "ensemble": ("Would you call the performers a choir, an orchestra or a soloist?",),
    "genre": ("If you had to name a genre, what would it be?", "On which genre's shelf of a record shop is this?"),
    "tags": ("Could one describe this as {style}?", "Is {style} a fitting label for it?"),
    "energy": ("How would you rate its energy: low, medium or high?",),
    "valence": ("Would you say the mood is dark, neutral or bright here?",),
    "choice": ("Only one of these is in the music. Which? {options}",),
    "no music": ("Tell me what is going on in this clip.", "Would you call this a piece of music?"),
    "refusals": (
        "Do you know the performer's name?", "In what decade did they record it?",
        "Can you quote the first line of the song?", "Whose composition is it?", "Which record company put this out?",
        "Is the band famous?",
    ),
}  # fmt: skip
"""By task; a test holds them against the training text."""

_FOLK = ("irish", "british", "folk", "traditional", "country", "bluegrass", "jig", "reel", "hornpipe")
_DANCE = ("techno", "house", "trance", "dance", "electronic", "disco", "drum and bass")
_LATIN = ("bossa", "samba", "salsa", "cha-cha", "rhumba", "bolero", "tango", "latin")
GENRES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("orchestral", ("orchestral",), ("orchestra", "classical", "film", "symphon")),
    ("metal", ("metal",), ("metal", "hard rock")),
    ("electronic", ("electronic",), ("electronic", "techno", "ambient", "house", "trance", "electro", "dance")),
    ("chiptune", ("chiptune",), ("chiptune", "8-bit", "electronic", "techno")),
    ("rap", ("hip-hop",), ("hip-hop", "rap")),
    ("ragtime", ("ragtime",), ("ragtime",)),
    ("jazz", ("jazz", "swing"), ("jazz", "swing", "big band", "blues")),
    ("rock", ("rock", "punk"), ("rock", "punk", "metal")),
    ("chamber music", ("chamber",), ("chamber", "classical")),
    ("choral", ("chorale", "madrigal", "vocal music"), ("choral", "madrigal", "baroque", "renaissance", "classical")),
    ("folk", ("Irish", "British", "folk", "bluegrass", "country"), _FOLK),
    ("dance", ("techno", "house", "trance", "dance", "disco", "drum and bass"), _DANCE),
    ("latin", ("bossa", "samba", "salsa", "cha-cha", "rhumba", "tango"), _LATIN),
)
"""Class, words of the true style that belong to it, words of an answer that say it."""
