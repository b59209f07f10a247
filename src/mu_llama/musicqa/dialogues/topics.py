"""One function a topic: a question about a track with its answer, or None where labels don't say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mu_llama.musicqa.dialogues.balance import Balance
from mu_llama.musicqa.dialogues.knowledge import Knowledge, are_near
from mu_llama.musicqa.dialogues.wording import Say, is_plural, slots_of
from mu_llama.musicqa.english import a, capital, listed
from mu_llama.prompts import Turn

Topic = Callable[[Knowledge, Say, Balance], Turn | None]

MOST_NAMED = 6
"""Instruments named in one answer."""
GENRES: tuple[str, ...] = (
    "rock", "pop", "jazz", "metal", "electronic", "folk", "punk", "blues", "ambient", "hip-hop", "country", "funk",
    "classical", "techno", "opera", "orchestral", "choral", "reggae", "soul", "disco", "ragtime", "house", "trance",
)  # fmt: skip
"""Genres that choices draw from."""
_ALIKE: tuple[frozenset[str], ...] = (
    frozenset(("rock", "metal", "punk", "hard rock", "heavy metal", "death metal", "rock and roll", "pop", "blues")),
    frozenset(("electronic", "techno", "ambient", "house", "trance", "electro", "dance", "disco", "hip-hop", "chiptune",
               "new age", "drum and bass", "experimental", "dance pop", "pop", "industrial")),
    frozenset(("classical", "opera", "orchestral", "choral", "baroque", "new age", "ambient")),
    frozenset(("jazz", "blues", "ragtime", "big band", "swing", "soul", "funk", "bossa nova", "boogie-woogie")),
    frozenset(("folk", "country", "bluegrass", "blues", "celtic", "Irish")),
    frozenset(("funk", "soul", "disco", "hip-hop", "rhythm and blues", "reggae", "pop")),
)  # fmt: skip


def instruments(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """Which instruments are there."""
    names, guesses = known.instruments, known.guessed("instrument")[:3]
    if known.is_solo and names:
        kind = say.rng.choice(("questions", "one_questions"))
        return say.turn("instruments", "one", question=kind, **slots_of(names[0]))
    if names:
        return _about_list(say, "many", names[:MOST_NAMED])
    if known.has_voice and known.is_solo:
        return say.turn("instruments", "voice_only")
    return _about_list(say, "maybe", guesses) if guesses else None


def _about_list(say: Say, answer: str, names: Sequence[str]) -> Turn:
    things = listed([a(name) for name in names])
    are = "are" if is_plural(names[0]) else "is"
    return say.turn("instruments", answer, things=things, Things=capital(things), are=are)


def lead(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """Which instrument leads."""
    name = known.one("lead")
    return say.turn("lead", "answers", **slots_of(name)) if name else None


def presence(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Whether one instrument or family is there."""
    drawn = balance.draw("presence", known.present, known.missing, say.rng)
    if drawn is None:
        return None
    name, there = drawn
    return say.turn("presence", "yes" if there else "no", **slots_of(name))


def guessed_presence(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Whether a tagger hears an instrument."""
    if known.instruments:
        return None
    drawn = balance.draw("guessed", known.guessed("instrument"), known.doubted("instrument"), say.rng)
    if drawn is None:
        return None
    name, there = drawn
    return say.turn("presence", "maybe_yes" if there else "maybe_no", **slots_of(name))


def drums(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Whether there are drums; both answers equally often."""
    there = known.has_drums
    if there is not None:
        return say.turn("drums", "yes" if there else "no") if balance.keeps("drums", there, say.rng) else None
    guess = "drums" in known.guessed("instrument")
    if guess or "drums" in known.doubted("instrument"):
        return say.turn("drums", "maybe_yes" if guess else "maybe_no")
    return None


def voice(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Whether somebody sings; labels say yes, a tagger may say no."""
    there = known.has_voice
    if there is not None:
        return say.turn("voice", "yes" if there else "no") if balance.keeps("voice", there, say.rng) else None
    if known.guessed("voice"):
        return say.turn("voice", "maybe_yes")
    return say.turn("voice", "maybe_no") if "voice" in known.doubted("voice") else None


def instrumental(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Vocal or instrumental."""
    there = known.has_voice
    if there is None:
        doubted = "voice" in known.doubted("voice") and not known.guessed("voice")
        return say.turn("instrumental", "maybe_instrumental") if doubted else None
    if not balance.keeps("voice", there, say.rng):
        return None
    return say.turn("instrumental", "vocal" if there else "instrumental")


def voice_kind(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Who sings."""
    there = known.has_voice
    if there is None or not balance.keeps("voice", there, say.rng):
        return None
    return say.turn("voice_kind", (known.one("voice") or "unknown") if there else "none")


def ensemble(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """Solo, duo, band, choir, orchestra, quartet."""
    name = known.one("ensemble")
    if not name:
        return None
    if say.rng.random() < 0.3:
        return say.turn("ensemble", "solo_yes" if name == "solo" else "solo_no", question="solo_questions")
    if name == "solo" and known.instruments and say.rng.random() < 0.6:
        return say.turn("ensemble", "alone", **slots_of(known.instruments[0]))
    return say.turn("ensemble", "answers", **slots_of(name))


def choice(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Which of four instruments is there, listed in words or by letter."""
    if not known.present:
        return None
    right = balance.draw("choice", known.present, (), say.rng)
    assert right is not None
    wrong = _apart(list(known.missing), right[0], say)
    return None if wrong is None else _four(say, right[0], wrong, "questions")


def genre_choice(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """Which of four genres fits."""
    right = known.one("genre") or next(iter(known.guessed("genre")), None)
    if right is None:
        return None
    supported = {*known.sure("genre"), *known.guessed("genre"), *known.sure("broader genre")}
    others = [name for name in GENRES if not any(alike(name, other) for other in supported)]
    wrong = say.rng.sample(others, 3) if len(others) >= 3 else None
    return None if wrong is None else _four(say, right, wrong, "genre_questions")


def _apart(names: Sequence[str], right: str, say: Say) -> list[str] | None:
    """Three names that aren't like each other."""
    found: list[str] = []
    for name in say.rng.sample(names, len(names)):
        if name != right and not any(are_near(name, other) for other in found):
            found.append(name)
        if len(found) == 3:
            return found
    return None


def _four(say: Say, right: str, wrong: Sequence[str], kind: str) -> Turn:
    options = say.rng.sample([right, *wrong], 4)
    if kind == "questions" and say.rng.random() < 0.5:
        words = ", ".join(options[:3]) + " or " + options[3]
        return say.turn("choice", "answers", options=words, Options=capital(words), **slots_of(right))
    letters = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
    letter = "ABCD"[options.index(right)]
    return say.turn("letters", "answers", question=kind, options=letters, letter=letter, thing=right)


def alike(one: str, other: str) -> bool:
    """Whether two genres are so near that one isn't denied beside the other.

    Example:
        >>> alike("techno", "ambient"), alike("techno", "folk"), alike("Irish jig", "folk")
        (True, False, True)
    """
    return one in other or other in one or any(_within(one, group) and _within(other, group) for group in _ALIKE)


def _within(name: str, group: frozenset[str]) -> bool:
    return any(word in name for word in group)


def louder(known: Knowledge, say: Say) -> list[Turn]:
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


def follow(known: Knowledge, say: Say, balance: Balance) -> list[Turn]:
    """Two turns: whether one instrument is there, and then only `And a violin?`."""
    first = presence(known, say, balance)
    drawn = balance.draw("presence", known.present, known.missing, say.rng)
    if first is None or drawn is None:
        return []
    name, there = drawn
    slots = slots_of(name)
    answer = say.pick("presence", "yes" if there else "no", **slots)
    return [first, Turn(say.pick("follow", "questions", **slots), answer)]


TOPICS: Mapping[Topic, float] = {
    instruments: 2.5, presence: 3.0, guessed_presence: 1.2, drums: 1.2, voice: 1.2, instrumental: 0.5,
    voice_kind: 0.5, lead: 0.8, ensemble: 1.0, choice: 1.5, genre_choice: 1.0,
}  # fmt: skip
"""Topics of what sounds, with how often they come up."""
