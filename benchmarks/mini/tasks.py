"""What is asked of the held-out tracks, and when an answer is right."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.mini.reading import denies_music, named, refuses, says_voice, yes_or_no
from benchmarks.mini.tables import GENRES, UNSEEN
from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues.phrasebook import slots_of, wording
from mu_llama.musicqa.dialogues.track_labels import TrackLabels

_FAMILIES = ("guitar", "bass", "brass", "organ", "strings", "synthesizer", "piano")
_MAX_OF_A_CLASS = 40


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
    tagger: float | bool | None = None
    """What the tagger says: a probability of yes, or whether its likeliest tag is right; None: nothing."""


def _asked(topic: str, kind: str, rng: random.Random, **slots: str) -> str:
    return str(rng.choice(wording()[topic][kind])).format_map(slots)


def _unseen(task: str, rng: random.Random, **slots: str) -> str:
    return rng.choice(UNSEEN[task]).format_map(slots)


_MIN_OF_A_CLASS = 3


def _evened(asks: Sequence[Ask], rng: random.Random, max_count: int = _MAX_OF_A_CLASS) -> list[Ask]:
    """As many of each class as the rarest, `max_count` at most; classes of one or two are left out."""
    counts = Counter(ask.truth for ask in asks)
    counts = Counter({truth: count for truth, count in counts.items() if count >= _MIN_OF_A_CLASS})
    if len(counts) < 2:
        return []
    count = min([max_count, *counts.values()])
    balanced: list[Ask] = []
    for truth in sorted(counts):
        balanced += rng.sample([ask for ask in asks if ask.truth == truth], count)
    return balanced


def _yes_no(row: int, question: str, unseen: str, holds: bool, tagger: float | None = None) -> Ask:
    return Ask(row, question, unseen, "yes" if holds else "no", lambda text: yes_or_no(text) == holds, tagger)


def solo(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """The solo instrument, named and no other."""
    asks = []
    for row, track in enumerate(tracks):
        known = TrackLabels(track)
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
        known = TrackLabels(track)
        if known.has_drums is not None and track.source[-1] in "AD" and not known.is_solo:
            question, unseen = _asked("drums", "questions", rng), _unseen("drums", rng)
            asks.append(_yes_no(row, question, unseen, known.has_drums, _likely(track, "drums")))
    return _evened(asks, rng, 150)


def _likely(track: Track, word: str) -> float | None:
    """The tagger's probability of an instrument or voice; None where it has no such tag."""
    value = track.facts.get(f"tagger {word}")
    return float(value) if value is not None else None


def families(tracks: Sequence[Track], rng: random.Random) -> dict[str, list[Ask]]:
    """Families of instruments in bands, yes or no, each evened."""
    tasks = {}
    for family in _FAMILIES:
        asks = []
        for row, track in enumerate(tracks):
            known = TrackLabels(track)
            if track.source[-1] in "ADE" and not known.is_solo and family in (*known.present, *known.missing):
                slots = slots_of(family)
                question, unseen = _asked("presence", "questions", rng, **slots), _unseen("presence", rng, **slots)
                asks.append(_yes_no(row, question, unseen, family in known.present, _likely(track, family)))
        if evened := _evened(asks, rng):
            tasks[f"band: {family}"] = evened
    return tasks


def voice(tracks: Sequence[Track], rng: random.Random, *, real: bool) -> list[Ask]:
    """Sung mixes and the same without the voice: rendered twins, or recordings with and without one mixed in."""
    by_id = {track.id: row for row, track in enumerate(tracks)}
    grounds = [
        row for row, track in enumerate(tracks) if track.source == "mini F" and TrackLabels(track).sings is False
    ]
    asks = []
    for row, track in enumerate(tracks):
        if not track.id.endswith("-sung") or ("-over-" in track.id) != real:
            continue
        twin = rng.choice(grounds) if real else by_id.get(track.id.replace("-sung", "-twin"))
        if twin is None or TrackLabels(tracks[twin]).has_voice:
            continue
        question, unseen = _asked("voice", "questions", rng), _unseen("voice", rng)
        for at, is_sung in ((row, True), (twin, False)):
            truth, tagger = "yes" if is_sung else "no", _likely(tracks[at], "voice")
            asks.append(
                Ask(at, question, unseen, truth, lambda text, is_sung=is_sung: says_voice(text) == is_sung, tagger)
            )
    return asks


_ENSEMBLES = {"choir": ("choir",), "orchestra": ("orchestra",), "solo": ("solo", "one player", "alone")}


def _says_only(text: str, name: str, words: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a text holds words of one class and none of another."""
    said = {other for other, forms in words.items() if any(word in text.lower() for word in forms)}
    return said == {name}


def ensemble(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Choir, orchestra or solo."""
    asks = []
    for row, track in enumerate(tracks):
        name = (TrackLabels(track).one("ensemble") or "").replace("string orchestra", "orchestra")
        if name in _ENSEMBLES and track.source[-1] in "BCF":
            question = "Is this a choir, an orchestra, a band or a solo?"
            asks.append(Ask(row, question, _unseen("ensemble", rng), name,
                            lambda text, name=name: _says_only(text, name, _ENSEMBLES)))  # fmt: skip
    return _evened(asks, rng)


def genre(tracks: Sequence[Track], rng: random.Random, *, real: bool, agreed: bool = True) -> list[Ask]:
    """Known styles, real or rendered, as many of each class as there are, forty at most.

    Args:
        tracks: all.
        rng: draws.
        real: recordings, or rendered clips.
        agreed: grooves whose style the tagger names too, or those where it doesn't.
    """
    by_class: dict[str, list[Ask]] = {}
    for row in rng.sample(range(len(tracks)), len(tracks)):
        track = tracks[row]
        style = TrackLabels(track).one("genre") if agreed else _not_named(track)
        if style is None or (track.source == "mini F") != real:
            continue
        name = next((name for name, meant, _ in GENRES if any(word in style for word in meant)), None)
        if name is not None:
            top = next(iter(TrackLabels(track).guessed("top genre")), "")
            ask = Ask(row, _asked("style", "questions", rng), _unseen("genre", rng), name,
                      lambda text, name=name: first_genre(text, name), first_genre(top, name))  # fmt: skip
            by_class.setdefault(name, []).append(ask)
    large = {name: members for name, members in by_class.items() if len(members) >= _MIN_OF_A_CLASS}
    return [ask for members in large.values() for ask in members[:_MAX_OF_A_CLASS]] if len(large) > 1 else []


def _not_named(track: Track) -> str | None:
    known = TrackLabels(track)
    return None if known.one("genre") else known.one("rendered style")


def first_genre(text: str, name: str) -> bool:
    """Whether the genre that a text names first is one that says a class.

    Example:
        >>> first_genre("Probably metal and jazz.", "metal"), first_genre("Probably metal and jazz.", "jazz")
        (True, False)
    """
    text = text.casefold()
    words = {word for _, _, said in GENRES for word in said}
    places = {text.find(word): word for word in sorted(words, key=len) if word in text}
    said = next(said for other, _, said in GENRES if other == name)
    return bool(places) and any(word in places[min(places)] for word in said)


def tags(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Genres of which the tagger is sure, either way: each genre as often yes as no."""
    names = sorted({name for track in tracks for name in TrackLabels(track).guessed("genre")})
    asks = []
    for name in names:
        of_genre = []
        for row, track in enumerate(tracks):
            known = TrackLabels(track)
            if (
                known.is_music
                and track.source[-1] in "FA"
                and name in (*known.guessed("genre"), *known.doubted("genre"))
            ):
                holds = name in known.guessed("genre")
                of_genre.append(_yes_no(row, _asked("style_presence", "questions", rng, style=name),
                                   _unseen("tags", rng, style=name), holds))  # fmt: skip
        if len({ask.truth for ask in of_genre}) == 2:
            asks += _evened(of_genre, rng, 15)
    return asks


_LEVELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "energy": {"low": ("low;", "low.", "low:", "is low"), "medium": ("medium",), "high": ("high",)},
    "valence": {"dark": ("dark",), "neutral": ("neutral",), "bright": ("bright",)},
}


def level(tracks: Sequence[Track], rng: random.Random, *, kind: str) -> list[Ask]:
    """Energy (low, medium, high) or valence (dark, neutral, bright): another model's guesses, evened."""
    question = {"energy": "Is the energy low, medium or high?", "valence": "Is the mood dark, neutral or bright?"}[kind]
    words, asks = _LEVELS[kind], []
    for row, track in enumerate(tracks):
        name = next(iter(TrackLabels(track).guessed(kind)), None)
        if name:
            asks.append(Ask(row, question, _unseen(kind, rng), name,
                            lambda text, name=name: _says_only(text, name, words)))  # fmt: skip
    return _evened(asks, rng)


def choice(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """One instrument among four."""
    often: dict[str, Counter[str]] = {}
    for track in tracks:
        often.setdefault(track.source, Counter()).update(TrackLabels(track).present)
    asks = []
    for row, track in enumerate(tracks):
        known = TrackLabels(track)
        if not known.present or len(known.missing) < 3 or rng.random() < 0.5:
            continue
        right = rng.choice(known.present)
        wrong = _drawn(known.missing, often[track.source], rng)
        options = rng.sample([right, *wrong], 4)
        letters = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
        question = _asked("letters", "questions", rng, options=letters)
        asks.append(Ask(row, question, _unseen("choice", rng, options=letters), "ABCD"[options.index(right)],
                        lambda text, right=right, options=tuple(options): chooses(text, options, right)))  # fmt: skip
    return _evened(asks, rng)


def _drawn(names: Sequence[str], often: Mapping[str, int], rng: random.Random) -> list[str]:
    """Three names, by how often each is there elsewhere, so that the question alone doesn't rule one out."""
    order = sorted(names, key=lambda name: -(rng.random() ** (1.0 / (often.get(name, 0) + 0.1))))
    return order[:3]


def chooses(text: str, options: Sequence[str], right: str) -> bool:
    """Whether an answer takes the right one of four by name, letter or both, and no other.

    Example:
        >>> four = ("piano", "violin", "flute", "harp")
        >>> [chooses(text, four, "violin") for text in ("Violin, so (B).", "(B)", "Violin, so (C).", "A flute.")]
        [True, True, False, False]
    """
    letters = set(re.findall(r"\(([A-D])\)", text))
    names = named(text, options)
    return bool(letters | names) and letters <= {"ABCD"[options.index(right)]} and names <= {right}


def refusals(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Questions that the sound can't answer."""
    rows = rng.sample(range(len(tracks)), min(120, len(tracks)))
    rows = [row for row in rows if TrackLabels(tracks[row]).is_music]
    kinds = ("artist", "year", "title", "words", "place")
    return [
        Ask(row, _asked("cannot", rng.choice(kinds), rng), _unseen("refusals", rng), "can't tell", refuses)
        for row in rows
    ]


def no_music(tracks: Sequence[Track], rng: random.Random) -> list[Ask]:
    """Speech and noise are no music, and music is."""
    asks = []
    for row, track in enumerate(tracks):
        known = TrackLabels(track)
        truth = known.one("sound") or "music"
        question = rng.choice(("Is this music?", "What do you hear?", "Describe this music.", "What genre is this?"))
        asks.append(Ask(row, question, _unseen("no music", rng), truth,
                        lambda text, is_music=known.is_music: denies_music(text) != is_music))  # fmt: skip
    return _evened(asks, rng)


def all_tasks(tracks: Sequence[Track], seed: int = 0) -> dict[str, list[Ask]]:
    """Every task with its questions; the same seed asks the same."""
    rng = random.Random(seed)
    tasks = {"solo instrument": solo(tracks, rng), "drums": drums(tracks, rng)}
    tasks |= families(tracks, rng)
    tasks |= {
        "vocal or instrumental": voice(tracks, rng, real=False),
        "vocal or instrumental, over recordings": voice(tracks, rng, real=True),
        "choir, orchestra or solo": ensemble(tracks, rng),
        "genre, rendered": genre(tracks, rng, real=False),
        "genre, rendered, unheard by the tagger": genre(tracks, rng, real=False, agreed=False),
        "genre, real": genre(tracks, rng, real=True),
        "tagger's genres": tags(tracks, rng),
        "energy": level(tracks, rng, kind="energy"),
        "valence": level(tracks, rng, kind="valence"),
        "four choices": choice(tracks, rng),
        "can't tell": refusals(tracks, rng),
        "no music": no_music(tracks, rng),
    }
    return {name: asks for name, asks in tasks.items() if asks}
