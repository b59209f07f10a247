"""Topics of sound, one function each: a question about a track with its answer, None where labels don't say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mu_llama.labels.vocabulary import listed
from mu_llama.musicqa.dialogues.phrasebook import Phrasebook, is_plural, slots_of
from mu_llama.musicqa.dialogues.track_labels import AnswerBalancer, TrackLabels, are_near
from mu_llama.musicqa.language import a, capital
from mu_llama.text.prompts import Turn

Topic = Callable[[TrackLabels, Phrasebook, AnswerBalancer], Turn | list[Turn] | None]

_MAX_NAMED_INSTRUMENTS = 6
"""Instruments named in one answer."""
_MAX_PRESENCES = 3
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


def instruments(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """Ask for the instruments."""
    names, guesses = labels.instruments, labels.guessed("instrument")[:3]
    kind = "one_questions" if phrasebook.rng.random() < (0.5 if labels.is_solo else 0.2) else "questions"
    if labels.is_solo and names:
        return phrasebook.turn("instruments", "one", question=kind, **slots_of(names[0]))
    if names:
        is_whole = labels.lists_all_instruments and 1 < len(names) <= _MAX_NAMED_INSTRUMENTS and not labels.has_voice
        return _about_list(phrasebook, "many", names[:_MAX_NAMED_INSTRUMENTS], is_whole=is_whole, question=kind)
    if labels.has_voice and labels.is_solo:
        return phrasebook.turn("instruments", "voice_only")
    return _about_list(phrasebook, "maybe", guesses) if guesses else None


def _about_list(
    phrasebook: Phrasebook, answer: str, names: Sequence[str], *, is_whole: bool = False, question: str = "questions"
) -> Turn:
    things = listed([a(name) for name in names])
    are = "are" if is_plural(names[0]) else "is"
    answer = phrasebook.rng.choice((answer, "all")) if is_whole else answer
    return phrasebook.turn("instruments", answer, question=question, things=things, Things=capital(things), are=are)


def lead(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """Ask for the lead instrument."""
    name = labels.one("lead")
    return phrasebook.turn("lead", "answers", **slots_of(name)) if name else None


def presence(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> list[Turn]:
    """Ask whether an instrument or family plays, up to three in a row."""
    turns: list[Turn] = []
    present, missing = labels.present, labels.missing
    for _ in range(phrasebook.rng.randint(1, _MAX_PRESENCES)):
        drawn = balancer.draw(labels.track.source, "presence", present, missing, phrasebook.rng)
        if drawn is None:
            break
        name, is_present = drawn
        present, missing = (tuple(other for other in names if other != name) for names in (present, missing))
        turns.append(phrasebook.turn("presence", "yes" if is_present else "no", **slots_of(name)))
    return turns


def guessed_presence(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask whether an instrument plays that only a tagger guesses or doubts."""
    if labels.instruments:
        return None
    drawn = balancer.draw(
        labels.track.source, "guessed", labels.guessed("instrument"), labels.doubted("instrument"), phrasebook.rng
    )
    if drawn is None:
        return None
    name, is_likely = drawn
    return phrasebook.turn("presence", "maybe_yes" if is_likely else "maybe_no", **slots_of(name))


def _balanced_answer(
    labels: TrackLabels, kind: str, phrasebook: Phrasebook, balancer: AnswerBalancer
) -> tuple[bool, bool] | None:
    """Give the answer, and whether it is a guess; None where it is unknown, or frequent and thinned out."""
    known = labels.yes_or_no.get(kind)
    return known if known is not None and balancer.keeps(labels.track.source, kind, known[0], phrasebook.rng) else None


def drums(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask whether there are drums; both answers equally often."""
    return _yes_or_no(labels, "drums", phrasebook, balancer)


def voice(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask whether somebody sings; both answers equally often."""
    return _yes_or_no(labels, "voice", phrasebook, balancer)


def _yes_or_no(labels: TrackLabels, kind: str, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    answer_and_guess = _balanced_answer(labels, kind, phrasebook, balancer)
    if answer_and_guess is None:
        return None
    answer = "yes" if answer_and_guess[0] else "no"
    return phrasebook.turn(kind, f"maybe_{answer}" if answer_and_guess[1] else answer)


def instrumental(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask whether it is vocal or instrumental."""
    answer_and_guess = _balanced_answer(labels, "voice", phrasebook, balancer)
    if answer_and_guess is None:
        return None
    answer = "vocal" if answer_and_guess[0] else "instrumental"
    return phrasebook.turn("instrumental", f"maybe_{answer}" if answer_and_guess[1] else answer)


def voice_kind(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask what kind of voice sings."""
    answer_and_guess = _balanced_answer(labels, "voice", phrasebook, balancer)
    if answer_and_guess is None or answer_and_guess[1]:
        return None
    return phrasebook.turn("voice_kind", (labels.one("voice") or "unknown") if answer_and_guess[0] else "none")


def ensemble(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask for the ensemble: solo, duo, band, choir, orchestra, quartet."""
    name = labels.one("ensemble")
    if not name or (name == "solo" and not labels.instruments):
        return None
    if phrasebook.rng.random() < 0.3 and balancer.keeps(labels.track.source, "solo", name == "solo", phrasebook.rng):
        return phrasebook.turn("ensemble", "solo_yes" if name == "solo" else "solo_no", question="solo_questions")
    if name == "solo" and labels.instruments and phrasebook.rng.random() < 0.6:
        return phrasebook.turn("ensemble", "alone", **slots_of(labels.instruments[0]))
    return phrasebook.turn("ensemble", "answers", **slots_of(name))


def choice(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask which of four instruments plays, listed in words or by letter."""
    if not labels.present:
        return None
    right = phrasebook.rng.choice(labels.present)
    wrong = _apart(labels, right, phrasebook, balancer)
    return None if wrong is None else _four(phrasebook, right, wrong, "questions")


def genre_choice(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask which of four genres fits; the wrong ones are drawn by how often they are right in the corpus."""
    if not labels.genres:
        return None
    wrong: list[str] = []
    while len(wrong) < 3:
        others = [name for name in balancer.genres if is_other(name, labels) and not any(alike(name, w) for w in wrong)]
        drawn = balancer.draw_genre(others, phrasebook.rng)
        if drawn is None:
            return None
        wrong.append(drawn)
    return _four(phrasebook, phrasebook.rng.choice(labels.genres[:2]), wrong, "genre_questions")


def is_other(name: str, labels: TrackLabels) -> bool:
    """Whether a genre is unlike all labels and guesses of a track and, where it has no genre label, doubted."""
    categories = ("genre", "broader genre", "rendered style")
    supported = (*labels.guessed("genre"), *(said for category in categories for said in labels.sure(category)))
    if any(alike(name, other) for other in supported):
        return False
    return bool(labels.sure("genre")) or name in labels.doubted("genre")


def _apart(labels: TrackLabels, right: str, phrasebook: Phrasebook, balancer: AnswerBalancer) -> list[str] | None:
    """Draw three names that aren't alike, by how often each is right in the corpus; None if there aren't three."""
    source, names = labels.track.source, labels.missing
    keys = {
        name: phrasebook.rng.random() ** (1.0 / (0.1 + balancer.affirmed(source, "presence", name))) for name in names
    }
    drawn: list[str] = []
    for name in sorted(names, key=lambda name: -keys[name]):
        if name != right and not any(are_near(name, other) for other in drawn):
            drawn.append(name)
        if len(drawn) == 3:
            return drawn
    return None


def _four(phrasebook: Phrasebook, right: str, wrong: Sequence[str], kind: str) -> Turn:
    options = phrasebook.rng.sample([right, *wrong], 4)
    if kind == "questions" and phrasebook.rng.random() < 0.5:
        words = ", ".join(options[:3]) + " or " + options[3]
        return phrasebook.turn("choice", "answers", options=words, Options=capital(words), **slots_of(right))
    letters = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
    letter = "ABCD"[options.index(right)]
    return phrasebook.turn("letters", "answers", question=kind, options=letters, letter=letter, Thing=capital(right))


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


def louder(labels: TrackLabels, phrasebook: Phrasebook) -> list[Turn]:
    """Ask for the instruments, then which of two is louder."""
    names = labels.instruments
    if len(names) < 3:
        return []
    at = phrasebook.rng.randrange(len(names) - 2)
    right, wrong = names[at], names[phrasebook.rng.randrange(at + 2, len(names))]
    if are_near(right, wrong):
        return []
    pair = [right, wrong] if phrasebook.rng.random() < 0.5 else [wrong, right]
    second = phrasebook.turn("louder", "answers", one=pair[0], other=pair[1], **slots_of(right))
    return [_about_list(phrasebook, "many", names[:_MAX_NAMED_INSTRUMENTS]), second]


def follow(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> list[Turn]:
    """Ask whether an instrument plays, then only `And a violin?`."""
    first = balancer.draw(labels.track.source, "presence", labels.present, labels.missing, phrasebook.rng)
    if first is None:
        return []
    present, missing = (tuple(name for name in names if name != first[0]) for names in (labels.present, labels.missing))
    second = balancer.draw(labels.track.source, "presence", present, missing, phrasebook.rng)
    if second is None:
        return []
    slots = slots_of(second[0])
    answer = phrasebook.pick("presence", "yes" if second[1] else "no", **slots)
    opening = phrasebook.turn("presence", "yes" if first[1] else "no", **slots_of(first[0]))
    return [opening, Turn(phrasebook.pick("follow", "questions", **slots), answer)]


SOUND_TOPICS: Mapping[Topic, float] = {
    instruments: 2.5, presence: 6.0, guessed_presence: 1.2, drums: 2.2, voice: 1.8, instrumental: 0.7,
    voice_kind: 0.6, lead: 0.8, ensemble: 1.5, choice: 2.8, genre_choice: 1.5,
}  # fmt: skip
"""Topics of sound with their weights in the draw."""
