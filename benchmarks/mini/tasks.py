"""What is asked of the held-out tracks, and when an answer is right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.mini.reading import denies_music, named, refuses, says_voice, yes_or_no
from benchmarks.mini.tables import GENRES, UNSEEN
from mu_llama.musicqa.dialogues.knowledge import Knowledge
from mu_llama.musicqa.dialogues.wording import slots_of, wording
from mu_llama.records import Track

_FAMILIES = ("guitar", "bass", "brass", "organ", "strings", "synthesizer", "piano")
_MOST_OF_A_CLASS = 40


@dataclass(frozen=True)
class Ask:
    """One question about one track."""

    row: int
    """Which track."""
    question: str
    """In a wording that training had."""
    unseen: str
    """In one that it hadn't."""
    truth: str
    """The class that accuracy is balanced over."""
    is_right: Callable[[str], bool]
    """Reads an answer."""
    tagger_is_right: bool | None = None
    """Whether the tagger's likeliest tag would have been right; None where no tag answers this."""


def _asked(topic: str, kind: str, rng: random.Random, **slots: str) -> str:
    return str(rng.choice(wording()[topic][kind])).format_map(slots)


def _unseen(task: str, rng: random.Random, **slots: str) -> str:
    return rng.choice(UNSEEN[task]).format_map(slots)


def _evened(asks: Sequence[Ask], rng: random.Random, most: int = _MOST_OF_A_CLASS) -> list[Ask]:
    """As many of each class as the rarest, `most` at most."""
    counts = Counter(ask.truth for ask in asks)
    least = min([most, *counts.values()])
    kept: list[Ask] = []
    for truth in sorted(counts):
        own = [ask for ask in asks if ask.truth == truth]
        kept += rng.sample(own, least)
    return kept


def _yes_no(row: int, question: str, unseen: str, there: bool, tagger: bool | None = None) -> Ask:
    right = None if tagger is None else tagger == there
    return Ask(row, question, unseen, "yes" if there else "no", lambda text: yes_or_no(text) == there, right)


def solo(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """The solo instrument, named and no other."""
    asks = []
    for row, track in enumerate(tracks):
        known = Knowledge(track)
        if track.source == "mini C" and known.is_solo and known.one("lead"):
            name = known.instruments[0]
            top = next(iter(known.guessed("top instrument")), None)
            kind = rng.choice(("questions", "one_questions"))
            asks.append(Ask(row, _asked("instruments", kind, rng), _unseen("solo", rng), name,
                            lambda text, name=name: named(text) == {name}, top == name))  # fmt: skip
    return asks


def drums(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Drums, yes or no, of bands and songs."""
    asks = []
    for row, track in enumerate(tracks):
        known = Knowledge(track)
        if known.has_drums is not None and track.source[-1] in "AD" and not known.is_solo:
            heard = "drums" in known.guessed("instrument")
            asks.append(_yes_no(row, _asked("drums", "questions", rng), _unseen("drums", rng), known.has_drums, heard))
    return _evened(asks, rng, 150)


def families(tracks: Sequence[Track], rng: random.Random) -> dict[str, list[Ask]]:
    """Families of instruments in bands, yes or no, each evened."""
    found = {}
    for family in _FAMILIES:
        asks = []
        for row, track in enumerate(tracks):
            known = Knowledge(track)
            if track.source[-1] in "ADE" and not known.is_solo and family in (*known.present, *known.missing):
                there = family in known.present
                tagger = (
                    family in known.guessed("instrument")
                    if family in ("guitar", "strings", "synthesizer", "piano")
                    else None
                )
                slots = slots_of(family)
                asks.append(_yes_no(row, _asked("presence", "questions", rng, **slots),
                                    _unseen("presence", rng, **slots), there, tagger))  # fmt: skip
        if len({ask.truth for ask in asks}) == 2:
            found[f"band: {family}"] = _evened(asks, rng)
    return found


def voice(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Sung mixes and their twins without the voice."""
    asks = []
    for row, track in enumerate(tracks):
        known = Knowledge(track)
        if track.source == "mini E" and known.has_voice is not None:
            there = known.has_voice
            heard = bool(known.guessed("top voice"))
            truth = "sung" if there else "instrumental"
            asks.append(Ask(row, _asked("voice", "questions", rng), _unseen("voice", rng), truth,
                            lambda text, there=there: says_voice(text) == there, heard == there))  # fmt: skip
    return _evened(asks, rng, 80)


_ENSEMBLES = {"choir": ("choir",), "orchestra": ("orchestra",), "solo": ("solo", "one player", "alone")}


def _says_only(text: str, name: str, words: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a text holds words of one class and none of another."""
    said = {other for other, own in words.items() if any(word in text.lower() for word in own)}
    return said == {name}


def ensemble(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Choir, orchestra or solo."""
    asks = []
    for row, track in enumerate(tracks):
        name = (Knowledge(track).one("ensemble") or "").replace("string orchestra", "orchestra")
        if name in _ENSEMBLES and track.source[-1] in "BCF":
            question = "Is this a choir, an orchestra, a band or a solo?"
            asks.append(Ask(row, question, _unseen("ensemble", rng), name,
                            lambda text, name=name: _says_only(text, name, _ENSEMBLES)))  # fmt: skip
    return _evened(asks, rng)


def genre(tracks: Sequence[Track], rng: random.Random, *, real: bool) -> list[Ask]:
    """Known styles, real or rendered, as many of each class as there are, forty at most."""
    asks = []
    for row, track in enumerate(tracks):
        style = Knowledge(track).one("genre")
        if style is None or (track.source == "mini F") != real:
            continue
        for name, meant, said in GENRES:
            if any(word in style for word in meant):
                top = next(iter(Knowledge(track).guessed("top genre")), "")
                asks.append(Ask(row, _asked("style", "questions", rng), _unseen("genre", rng), name,
                                lambda text, said=said: any(word in text.lower() for word in said),
                                any(word in top.lower() for word in said)))  # fmt: skip
                break
    by_class: dict[str, list[Ask]] = {}
    for ask in rng.sample(asks, len(asks)):
        by_class.setdefault(ask.truth, []).append(ask)
    return [ask for own in by_class.values() for ask in own[:_MOST_OF_A_CLASS]]


def tags(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Genres of which the tagger is sure, either way: each genre as often yes as no."""
    names = sorted({name for track in tracks for name in Knowledge(track).guessed("genre")})
    asks = []
    for name in names:
        own = []
        for row, track in enumerate(tracks):
            known = Knowledge(track)
            if (
                known.is_music
                and track.source[-1] in "FA"
                and name in (*known.guessed("genre"), *known.doubted("genre"))
            ):
                there = name in known.guessed("genre")
                own.append(_yes_no(row, _asked("style_presence", "questions", rng, style=name),
                                   _unseen("tags", rng, style=name), there))  # fmt: skip
        if len({ask.truth for ask in own}) == 2:
            asks += _evened(own, rng, 15)
    return asks


_LEVELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "energy": {"low": ("low", "calm, "), "medium": ("medium",), "high": ("high",)},
    "valence": {"dark": ("dark",), "neutral": ("neutral",), "bright": ("bright",)},
}


def level(tracks: Sequence[Track], rng: random.Random, *, kind: str) -> list[Ask]:
    """Energy (low, medium, high) or valence (dark, neutral, bright): another model's guesses, evened."""
    question = {"energy": "Is the energy low, medium or high?", "valence": "Is the mood dark, neutral or bright?"}[kind]
    words, asks = _LEVELS[kind], []
    for row, track in enumerate(tracks):
        name = next(iter(Knowledge(track).guessed(kind)), None)
        if name:
            asks.append(Ask(row, question, _unseen(kind, rng), name,
                            lambda text, name=name: _says_only(text, name, words)))  # fmt: skip
    return _evened(asks, rng)


def choice(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """One instrument among four."""
    asks = []
    for row, track in enumerate(tracks):
        known = Knowledge(track)
        if not known.present or len(known.missing) < 3 or rng.random() < 0.5:
            continue
        right, wrong = rng.choice(known.present), rng.sample(known.missing, 3)
        options = rng.sample([right, *wrong], 4)
        letters = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
        question = _asked("letters", "questions", rng, options=letters)
        asks.append(Ask(row, question, _unseen("choice", rng, options=letters), "ABCD"[options.index(right)],
                        lambda text, right=right, options=tuple(options): named(text, options) == {right}))  # fmt: skip
    return _evened(asks, rng)


def refusals(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """What can't be heard."""
    rows = rng.sample(range(len(tracks)), min(120, len(tracks)))
    rows = [row for row in rows if Knowledge(tracks[row]).is_music]
    kinds = ("artist", "year", "title", "words", "place")
    return [
        Ask(row, _asked("cannot", rng.choice(kinds), rng), _unseen("refusals", rng), "can't tell", refuses)
        for row in rows
    ]


def no_music(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Speech and noise: no music, whatever is asked."""
    asks = []
    for row, track in enumerate(tracks):
        known = Knowledge(track)
        if not known.is_music:
            question = rng.choice(("What genre is this?", "What instruments do you hear?", "Describe this music."))
            asks.append(
                Ask(row, question, "Tell me what is going on in this clip.", known.one("sound") or "", denies_music)
            )
    return _evened(asks, rng)


def all_tasks(tracks: Sequence[Track], seed: int = 0) -> dict[str, list[Ask]]:
    """Every task with its questions; the same seed asks the same."""
    rng = random.Random(seed)
    tasks = {"solo instrument": solo(tracks, rng), "drums": drums(tracks, rng)}
    tasks |= families(tracks, rng)
    tasks |= {
        "vocal or instrumental": voice(tracks, rng),
        "choir, orchestra or solo": ensemble(tracks, rng),
        "genre, rendered": genre(tracks, rng, real=False),
        "genre, real": genre(tracks, rng, real=True),
        "tagger's genres": tags(tracks, rng),
        "energy": level(tracks, rng, kind="energy"),
        "valence": level(tracks, rng, kind="valence"),
        "four choices": choice(tracks, rng),
        "can't tell": refusals(tracks, rng),
        "no music": no_music(tracks, rng),
    }
    return {name: asks for name, asks in tasks.items() if asks}
