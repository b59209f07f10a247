"""Topics of what music is like: style, mood, energy, era, use, and what can't be heard."""

from __future__ import annotations

from collections.abc import Mapping

from mu_llama.musicqa.dialogues.phrasebook import Phrasebook, wording
from mu_llama.musicqa.dialogues.topics import Topic, is_other
from mu_llama.musicqa.dialogues.track_labels import AnswerBalancer, TrackLabels
from mu_llama.musicqa.language import a, capital, listed, pace_of
from mu_llama.text.fact_prompts import MeasuredFact, with_measured
from mu_llama.text.prompts import Turn

_KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_ENERGY_WORDS = {"low": "calm", "medium": "moderate", "high": "energetic"}


def style(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """The style: stated where it is known, guessed where only a tagger speaks."""
    name, guesses = known.one("genre"), known.guessed("genre")[:2]
    if name:
        return say.turn("style", "known", style=as_kind(name), Style=capital(as_kind(name)))
    return say.turn("style", "maybe", style=listed([as_kind(guess) for guess in guesses])) if guesses else None


_ADJECTIVES = frozenset(("electronic", "classical", "experimental", "ambient", "orchestral", "Indian", "choral"))
_COUNTED = ("chorale", "madrigal", "waltz", "march", "ballad", "polka", "tango", "tune", "accompaniment", "calypso")


def as_kind(genre: str) -> str:
    """Name a genre as a noun: with an article where it is a piece, with "music" where it is an adjective.

    Example:
        >>> as_kind("jazz waltz"), as_kind("jazz"), as_kind("classical")
        ('a jazz waltz', 'jazz', 'classical music')
    """
    if is_piece(genre):
        return a(genre)
    return f"{genre} music" if genre in _ADJECTIVES else genre


def is_piece(genre: str) -> bool:
    """Whether a genre is a kind of piece, like a waltz."""
    return genre.endswith(_COUNTED)


def style_presence(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Whether it is one genre; each is denied about as often as it is affirmed."""
    if not known.genres:
        return None
    maybe = "" if known.one("genre") else "maybe_"
    if say.rng.random() < 0.5:
        return _is_it(say.rng.choice(known.genres[:3]), f"{maybe}yes", say)
    name = balance.draw_genre([other for other in balance.genres if is_other(other, known)], say.rng)
    return _is_it(name, f"{maybe}no", say) if name else None


def _is_it(genre: str, answer: str, say: Phrasebook) -> Turn:
    """Ask about a genre, as a noun or as people say it: "Is this electronic?"."""
    asked = genre if not is_piece(genre) and say.rng.random() < 0.5 else as_kind(genre)
    question = say.pick("style_presence", "questions", style=asked)
    return Turn(question, say.pick("style_presence", answer, style=as_kind(genre)))


def mood(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """How it feels, as far as a tagger is sure."""
    moods = known.guessed("mood")[:3]
    return say.turn("mood", "maybe", moods=listed(moods)) if moods else None


def energy(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Low, medium or high energy."""
    level = next(iter(known.guessed("energy")), None)
    if level is None or not balance.keeps(known.track.source, "energy", level, say.rng):
        return None
    if level == "medium" or say.rng.random() < 0.5:
        return say.turn("energy", level)
    kind = say.rng.choice(("yes_questions", "no_questions"))
    answer = "yes" if (kind == "yes_questions") == (level == "high") else "no"
    return say.turn("energy", answer, question=kind, energy=_ENERGY_WORDS[level])


def valence(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Dark, neutral or bright."""
    level = next(iter(known.guessed("valence")), None)
    return (
        say.turn("valence", level) if level and balance.keeps(known.track.source, "valence", level, say.rng) else None
    )


def production(known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> Turn | None:
    """Acoustic, or electric and electronic."""
    kind = known.one("production")
    if kind is None or not balance.keeps(known.track.source, "acoustic", kind == "acoustic", say.rng):
        return None
    return say.turn("acoustic", kind)


def era(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """The period of a style."""
    name = known.one("era")
    return say.turn("era", "answers", era=name) if name else None


def uses(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """What it would suit."""
    fitting = known.sure("use") or known.guessed("use")
    return say.turn("uses", "answers", use=say.rng.choice(fitting)) if fitting else None


def pace(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn:
    """Slow, medium or fast: read from a measured tempo in the prompt; without one it isn't known."""
    kind = say.rng.choice(("questions", "slow_questions", "fast_questions"))
    question = say.pick("pace", kind)
    if say.rng.random() < 0.15:
        return Turn(question, say.pick("pace", "unknown"))
    bpm, sure = say.rng.randint(45, 200), say.rng.random() < 0.7
    question = _measured(question, tempo=(f"{bpm} BPM", sure))
    name = pace_of(bpm)
    if kind == "questions":
        return Turn(question, say.pick("pace", name if sure else "maybe", pace=name, bpm=str(bpm)))
    yes = "yes" if kind.startswith(name) else "no"
    return Turn(question, say.pick("pace", yes if sure else f"maybe_{yes}", pace=name, bpm=str(bpm)))


def cannot(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn:
    """What no sound tells: who, when, its title, its words."""
    subjects = ["artist", "year", "title", "place"] + (["words"] if known.has_voice is not False else [])
    subject = say.rng.choice(subjects)
    what = wording()["cannot"]["what"][subject]
    return Turn(say.pick("cannot", subject), say.pick("cannot", "answers", what=what))


def facts(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn:
    """A measured value, read from the prompt; without one it isn't known."""
    topic = say.rng.choices(("tempo", "key", "loudness", "duration"), (4, 4, 1, 1))[0]
    question = say.pick("facts", topic)
    if say.rng.random() < 0.2:
        return Turn(question, say.pick("facts", "unknown", what=wording()["facts"]["what"][topic]))
    text, sure = random_value(topic, say)
    value = text.removesuffix(" BPM").removesuffix(" LUFS")
    answer = say.pick("facts", f"{topic}_{'sure' if sure else 'unsure'}", value=value)
    return Turn(_measured(question, **{topic: (text, sure)}), answer)


def tempo_and_key(known: TrackLabels, say: Phrasebook, _: AnswerBalancer) -> Turn:
    """Both at once, each as sure as it is."""
    tempo, key = random_value("tempo", say), random_value("key", say)
    question = say.rng.choice(
        ("What are the tempo and the key?", "What key and tempo is this in?", "Tempo and key, please.")
    )
    words = ["about" if tempo[1] else "probably", "is" if key[1] else "is probably"]
    answer = f"The tempo is {words[0]} {tempo[0]}, and the key {words[1]} {key[0]}."
    return Turn(_measured(question, tempo=tempo, key=key), answer)


def random_value(topic: str, say: Phrasebook) -> tuple[str, bool]:
    """A value as the prompt carries it, and whether it is sure. Any will do: the answer is read, not heard."""
    rng = say.rng
    if topic == "tempo":
        return f"{rng.randint(40, 220)} BPM", rng.random() < 0.7
    if topic == "key":
        return f"{rng.choice(_KEYS)} {rng.choice(('major', 'minor'))}", rng.random() < 0.6
    if topic == "loudness":
        return f"{rng.uniform(-40, -5):.1f} LUFS", True
    return f"{rng.randint(0, 12)}:{rng.randint(0, 59):02d} minutes", True


def _measured(question: str, **values: tuple[str, bool]) -> str:
    return with_measured(
        question, {name: MeasuredFact(text, 1.0 if sure else 0.0) for name, (text, sure) in values.items()}
    )


TOPICS: Mapping[Topic, float] = {
    style: 3.0, style_presence: 1.6, mood: 0.7, energy: 1.5, valence: 1.0, production: 0.5, era: 0.2, uses: 0.3,
    pace: 0.4, cannot: 1.2, facts: 1.8, tempo_and_key: 0.3,
}  # fmt: skip
"""Topics of character, with how often they come up."""
