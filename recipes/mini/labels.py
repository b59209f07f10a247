"""The labels of a track as words that hold (true) or not (false); unknown ones are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues.topics import is_other
from mu_llama.musicqa.dialogues.track_labels import ASKABLE, FAMILIES, TrackLabels, are_near
from recipes.mini.tag_words import BROADER, GENRES

INSTRUMENTS = tuple(dict.fromkeys((
    *ASKABLE, *FAMILIES, *(name for members in FAMILIES.values() for name in sorted(members)),
    "hand percussion", "harmonica", "marimba or xylophone", "bells", "koto", "clavinet", "whistle", "pan flute",
)))  # fmt: skip
ENSEMBLES = ("solo", "duo", "band", "choir", "orchestra", "string orchestra", "string quartet")
STYLES = tuple(dict.fromkeys((*GENRES.values(), *BROADER)))
VALENCE = ("dark", "neutral", "bright")
_ENERGY_WORDS = {"low": "calm", "medium": "medium", "high": "energetic"}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "drums": ("drums",), "voice": ("singing", "woman"), "instrument": INSTRUMENTS, "ensemble": ENSEMBLES,
    "genre": STYLES, "energy": tuple(_ENERGY_WORDS.values()), "valence": VALENCE,
    "sound": ("music", "speech", "noise"), "production": ("acoustic", "electric"),
}  # fmt: skip
"""Kinds of labels; a word belongs to the first that has it."""
_BROAD = ("guitar", "bass", "brass", "organ", "woodwinds")  # likelier than any of their members
CHOICES: Mapping[str, tuple[str, ...]] = {
    "style": STYLES, "ensemble": ENSEMBLES, "energy": GROUPS["energy"], "mood": VALENCE,
    "instrument": tuple(name for name in INSTRUMENTS if name not in _BROAD),
}  # fmt: skip
"""Kinds of labels of which an audio token names the likeliest."""
_SAID = {name for group in GROUPS.values() for name in group}


def labels_of(track: Track) -> dict[str, bool]:
    """Say of each word whether it holds.

    Example:
        >>> tags = {"instrument": ("violin",), "ensemble": ("solo",)}
        >>> labels = labels_of(Track("a", tags=tags, absent={"instrument": ("others",)}))
        >>> labels["violin"], labels["trumpet"], labels["solo"], labels["band"], "calm" in labels
        (True, False, True, False, False)
    """
    known = TrackLabels(track)
    sound = known.one("sound") or "music"
    labels = {word: word == sound for word in GROUPS["sound"]}
    if known.is_music:
        labels |= _ensemble(known) | _instruments(known) | _voice(known) | _character(known)
    return labels


def _instruments(known: TrackLabels) -> dict[str, bool]:
    labels = dict.fromkeys(known.guessed("instrument"), True) | dict.fromkeys(known.doubted("instrument"), False)
    if known.instruments:
        labels = {}
    present = {*known.instruments, *known.present}
    if known.lists_all_instruments:
        unsure = {*known.sure("faint")}
        for name in INSTRUMENTS:
            members = FAMILIES.get(name, frozenset((name,)))
            alike = any(are_near(name, other) for other in present) and not known.is_solo
            if name not in present and not members & {*present, *unsure} and not alike:
                labels[name] = False
    return {name: holds for name, holds in (labels | dict.fromkeys(present, True)).items() if name in _SAID}


def _ensemble(known: TrackLabels) -> dict[str, bool]:
    """A choir can sing in a band, and a string orchestra is an orchestra."""
    labels = _one_of(known.one("ensemble"), ENSEMBLES)
    if labels and not labels["choir"]:
        del labels["choir"]
    return labels | {"orchestra": True} if labels.get("string orchestra") else labels


def _voice(known: TrackLabels) -> dict[str, bool]:
    """Drums and voices, by labels or else a tagger."""
    known_words = {"drums": known.plays_drums, "singing": known.sings}
    if known.has_voice is not None and known.one("voice") not in ("unknown", "choir"):
        known_words["woman"] = known.one("voice") == "female"
    return {name: holds for name, holds in known_words.items() if holds is not None}


def _one_of(value: str | None, names: Iterable[str]) -> dict[str, bool]:
    """A yes for one of several names and a no for the others; nothing where it is none of them."""
    return {name: name == value for name in names} if value in names else {}


def _character(known: TrackLabels) -> dict[str, bool]:
    labels = {name: False for name in STYLES if known.genres and is_other(name, known)}
    labels |= {name: True for name in known.genres if name in _SAID}
    energy, valence = (next(iter(known.guessed(kind)), None) for kind in ("energy", "valence"))
    labels |= _one_of(_ENERGY_WORDS.get(energy or ""), _ENERGY_WORDS.values()) | _one_of(valence, VALENCE)
    return labels | _one_of(known.one("production"), ("acoustic", "electric"))
