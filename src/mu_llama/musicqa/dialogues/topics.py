"""One function a topic: a question about a track with its answer, or None where labels don't say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mu_llama.musicqa.dialogues.phrasebook import Phrasebook, is_plural, slots_of
from mu_llama.musicqa.dialogues.track_labels import AnswerBalancer, TrackLabels, are_near
from mu_llama.musicqa.language import a, capital, listed
from mu_llama.text.prompts import Turn

Topic = Callable[[TrackLabels, Phrasebook, AnswerBalancer], Turn | list[Turn] | None]

MOST_NAMED = 6
"""Instruments named in one answer."""
MOST_PRESENCES = 3
"""Instruments asked about one after the other."""
_ALIKE: tuple[frozenset[str], ...] = (
    frozenset(("rock", "metal", "punk", "pop", "blues", "ska", "ballad")),
    frozenset(("electronic", "techno", "ambient", "house", "trance", "electro", "dance", "disco", "hip-hop", "chiptune",
               "new age", "drum and bass", "experimental", "pop", "industrial", "funk")),
    frozenset(("classical", "opera", "orchestral", "choral", "chorale", "madrigal", "vocal music", "chamber", "baroque",
               "renaissance", "new age", "ambient", "waltz", "march", "tango", "arpeggiated", "hymn")),
    frozenset(("jazz", "blues", "ragtime", "big band", "swing", "soul", "funk", "bossa nova", "boogie-woogie",
               "show tune", "foxtrot", "samba", "salsa", "cha-cha", "rhumba", "tango", "calypso", "dixieland")),
    frozenset(("folk", "country", "bluegrass", "blues", "celtic", "irish", "traditional", "zydeco", "polka", "waltz",
               "march", "indian", "hymn", "ballad", "calypso")),
    frozenset(("funk", "soul", "disco", "hip-hop", "rhythm and blues", "reggae", "ska", "pop", "ballad")),
)  # fmt: skip


def instruments(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """Which instruments are there."""
    names, guesses = known.instruments, known.guessed("instrument")[:3]
    kind = "one_questions" if say.rng.random() < (0.5 if known.is_solo else 0.2) else "questions"
    if known.is_solo and names:
        return say.turn("instruments", "one", question=kind, **slots_of(names[0]))
    if names:
        is_whole = known.lists_all_instruments and 1 < len(names) <= MOST_NAMED and not known.has_voice
        return _about_list(say, "many", names[:MOST_NAMED], is_whole=is_whole, question=kind)
    if known.has_voice and known.is_solo:
        return say.turn("instruments", "voice_only")
    return _about_list(say, "maybe", guesses) if guesses else None


def _about_list(
    say: Phrasebook, answer: str, names: Sequence[str], *, is_whole: bool = False, question: str = "questions"
) -> Turn:
    things = listed([a(name) for name in names])
    are = "are" if is_plural(names[0]) else "is"
    answer = say.rng.choice((answer, "all")) if is_whole else answer
    return say.turn("instruments", answer, question=question, things=things, Things=capital(things), are=are)


def lead(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """Which instrument leads."""
    name = known.one("lead")
    return say.turn("lead", "answers", **slots_of(name)) if name else None


def presence(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> list[Turn]:
    """Whether one instrument or family is there, and now and then another."""
    turns: list[Turn] = []
    present, missing = known.present, known.missing
    for _ in range(say.rng.randint(1, MOST_PRESENCES)):
        drawn = balance.draw(known.track.source, "presence", present, missing, say.rng)
        if drawn is None:
            break
        name, there = drawn
        present, missing = (tuple(other for other in names if other != name) for names in (present, missing))
        turns.append(say.turn("presence", "yes" if there else "no", **slots_of(name)))
    return turns


def guessed_presence(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Whether a tagger hears an instrument."""
    if known.instruments:
        return None
    drawn = balance.draw(
        known.track.source, "guessed", known.guessed("instrument"), known.doubted("instrument"), say.rng
    )
    if drawn is None:
        return None
    name, there = drawn
    return say.turn("presence", "maybe_yes" if there else "maybe_no", **slots_of(name))


def _evened(known: TrackLabels, kind: str, say: Phrasebook, balance: AnswerBalancer) -> tuple[bool, bool] | None:
    """The answer, and whether it is a guess; None where nothing is known or the frequent answer is passed over."""
    found = known.yes_or_no.get(kind)
    return found if found is not None and balance.keeps(known.track.source, kind, found[0], say.rng) else None


def drums(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Whether there are drums; both answers equally often."""
    return _yes_or_no(known, "drums", say, balance)


def voice(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Whether somebody sings; both answers equally often."""
    return _yes_or_no(known, "voice", say, balance)


def _yes_or_no(known: TrackLabels, kind: str, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    found = _evened(known, kind, say, balance)
    if found is None:
        return None
    answer = "yes" if found[0] else "no"
    return say.turn(kind, f"maybe_{answer}" if found[1] else answer)


def instrumental(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Vocal or instrumental."""
    found = _evened(known, "voice", say, balance)
    if found is None:
        return None
    answer = "vocal" if found[0] else "instrumental"
    return say.turn("instrumental", f"maybe_{answer}" if found[1] else answer)


def voice_kind(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Who sings."""
    found = _evened(known, "voice", say, balance)
    if found is None or found[1]:
        return None
    return say.turn("voice_kind", (known.one("voice") or "unknown") if found[0] else "none")


def ensemble(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Solo, duo, band, choir, orchestra, quartet."""
    name = known.one("ensemble")
    if not name or (name == "solo" and not known.instruments):
        return None
    if say.rng.random() < 0.3 and balance.keeps(known.track.source, "solo", name == "solo", say.rng):
        return say.turn("ensemble", "solo_yes" if name == "solo" else "solo_no", question="solo_questions")
    if name == "solo" and known.instruments and say.rng.random() < 0.6:
        return say.turn("ensemble", "alone", **slots_of(known.instruments[0]))
    return say.turn("ensemble", "answers", **slots_of(name))


def choice(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Which of four instruments is there, listed in words or by letter."""
    if not known.present:
        return None
    right = say.rng.choice(known.present)
    wrong = _apart(known, right, say, balance)
    return None if wrong is None else _four(say, right, wrong, "questions")


def genre_choice(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Which of four genres fits; the wrong ones are as often right elsewhere."""
    if not known.genres:
        return None
    wrong: list[str] = []
    while len(wrong) < 3:
        others = [name for name in balance.genres if is_other(name, known) and not any(alike(name, w) for w in wrong)]
        drawn = balance.draw_genre(others, say.rng)
        if drawn is None:
            return None
        wrong.append(drawn)
    return _four(say, say.rng.choice(known.genres[:2]), wrong, "genre_questions")


def is_other(name: str, known: TrackLabels) -> bool:
    """Whether a genre is like nothing that labels or a tagger give a track, and where no label speaks, doubted."""
    categories = ("genre", "broader genre", "rendered style")
    supported = (*known.guessed("genre"), *(said for category in categories for said in known.sure(category)))
    if any(alike(name, other) for other in supported):
        return False
    return bool(known.sure("genre")) or name in known.doubted("genre")


def _apart(known: TrackLabels, right: str, say: Phrasebook, balance: AnswerBalancer) -> list[str] | None:
    """Three names that aren't like each other, those that are often right elsewhere first."""
    source, names = known.track.source, known.missing
    keys = {name: say.rng.random() ** (1.0 / (0.1 + balance.affirmed(source, "presence", name))) for name in names}
    found: list[str] = []
    for name in sorted(names, key=lambda name: -keys[name]):
        if name != right and not any(are_near(name, other) for other in found):
            found.append(name)
        if len(found) == 3:
            return found
    return None


def _four(say: Phrasebook, right: str, wrong: Sequence[str], kind: str) -> Turn:
    options = say.rng.sample([right, *wrong], 4)
    if kind == "questions" and say.rng.random() < 0.5:
        words = ", ".join(options[:3]) + " or " + options[3]
        return say.turn("choice", "answers", options=words, Options=capital(words), **slots_of(right))
    letters = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
    letter = "ABCD"[options.index(right)]
    return say.turn("letters", "answers", question=kind, options=letters, letter=letter, Thing=capital(right))


def alike(one: str, other: str) -> bool:
    """Whether two genres are so near that one isn't denied beside the other.

    Example:
        >>> alike("techno", "ambient"), alike("techno", "folk"), alike("Baroque chorale", "classical")
        (True, False, True)
    """
    one, other = one.casefold(), other.casefold()
    return one in other or other in one or any(_within(one, group) and _within(other, group) for group in _ALIKE)


def _within(name: str, group: frozenset[str]) -> bool:
    return any(word in name for word in group)


def louder(known: TrackLabels, say: Phrasebook) -> list[Turn]:
    """Two turns: which instruments, then which of two is heard more."""
    names = known.instruments
    if len(names) < 3:
        return []
    at = say.rng.randrange(len(names) - 2)
    right, wrong = names[at], names[say.rng.randrange(at + 2, len(names))]
    if are_near(right, wrong):
        return []
    pair = [right, wrong] if say.rng.random() < 0.5 else [wrong, right]
    second = say.turn("louder", "answers", one=pair[0], other=pair[1], **slots_of(right))
    return [_about_list(say, "many", names[:MOST_NAMED]), second]


def follow(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> list[Turn]:
    """Two turns: whether one instrument is there, and then only `And a violin?`."""
    first = balance.draw(known.track.source, "presence", known.present, known.missing, say.rng)
    if first is None:
        return []
    there, missing = (tuple(name for name in names if name != first[0]) for names in (known.present, known.missing))
    second = balance.draw(known.track.source, "presence", there, missing, say.rng)
    if second is None:
        return []
    slots = slots_of(second[0])
    answer = say.pick("presence", "yes" if second[1] else "no", **slots)
    opening = say.turn("presence", "yes" if first[1] else "no", **slots_of(first[0]))
    return [opening, Turn(say.pick("follow", "questions", **slots), answer)]


TOPICS: Mapping[Topic, float] = {
    instruments: 2.5, presence: 6.0, guessed_presence: 1.2, drums: 2.2, voice: 1.8, instrumental: 0.7,
    voice_kind: 0.6, lead: 0.8, ensemble: 1.5, choice: 2.8, genre_choice: 1.5,
}  # fmt: skip
"""Topics of what sounds, with how often they come up."""
