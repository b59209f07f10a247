"""Topics of character: style, mood, energy, era, use, measured values, and what audio doesn't say."""

from __future__ import annotations

from collections.abc import Mapping

from mu_llama.labels.vocabulary import listed
from mu_llama.musicqa.dialogues.phrasebook import Phrasebook, wording
from mu_llama.musicqa.dialogues.topics import Topic, is_other
from mu_llama.musicqa.dialogues.track_labels import AnswerBalancer, TrackLabels
from mu_llama.musicqa.language import a, capital, pace_of
from mu_llama.text.fact_prompts import MeasuredFact, with_measured
from mu_llama.text.prompts import Turn

_KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_ENERGY_WORDS = {"low": "calm", "medium": "moderate", "high": "energetic"}


def style(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """Ask for the style: stated where it is labelled, hedged where it is a tagger's guess."""
    name, guesses = labels.one("genre"), labels.guessed("genre")[:2]
    if name:
        return phrasebook.turn("style", "known", style=as_kind(name), Style=capital(as_kind(name)))
    return phrasebook.turn("style", "maybe", style=listed([as_kind(guess) for guess in guesses])) if guesses else None


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


def style_presence(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask whether it is a genre; each genre is denied about as often as it is affirmed."""
    if not labels.genres:
        return None
    maybe = "" if labels.one("genre") else "maybe_"
    if phrasebook.rng.random() < 0.5:
        return _is_it(phrasebook.rng.choice(labels.genres[:3]), f"{maybe}yes", phrasebook)
    name = balancer.draw_genre([other for other in balancer.genres if is_other(other, labels)], phrasebook.rng)
    return _is_it(name, f"{maybe}no", phrasebook) if name else None


def _is_it(genre: str, answer: str, phrasebook: Phrasebook) -> Turn:
    """Ask about a genre, as a noun or as people say it: "Is this electronic?"."""
    asked = genre if not is_piece(genre) and phrasebook.rng.random() < 0.5 else as_kind(genre)
    question = phrasebook.pick("style_presence", "questions", style=asked)
    return Turn(question, phrasebook.pick("style_presence", answer, style=as_kind(genre)))


def mood(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """Ask for the mood, from a tagger's guesses."""
    moods = labels.guessed("mood")[:3]
    return phrasebook.turn("mood", "maybe", moods=listed(moods)) if moods else None


def energy(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask for the energy: low, medium or high."""
    level = next(iter(labels.guessed("energy")), None)
    if level is None or not balancer.keeps(labels.track.source, "energy", level, phrasebook.rng):
        return None
    if level == "medium" or phrasebook.rng.random() < 0.5:
        return phrasebook.turn("energy", level)
    kind = phrasebook.rng.choice(("yes_questions", "no_questions"))
    answer = "yes" if (kind == "yes_questions") == (level == "high") else "no"
    return phrasebook.turn("energy", answer, question=kind, energy=_ENERGY_WORDS[level])


def valence(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask for the valence: dark, neutral or bright."""
    level = next(iter(labels.guessed("valence")), None)
    return (
        phrasebook.turn("valence", level)
        if level and balancer.keeps(labels.track.source, "valence", level, phrasebook.rng)
        else None
    )


def production(labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> Turn | None:
    """Ask whether it is acoustic, or electric and electronic."""
    kind = labels.one("production")
    if kind is None or not balancer.keeps(labels.track.source, "acoustic", kind == "acoustic", phrasebook.rng):
        return None
    return phrasebook.turn("acoustic", kind)


def era(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """Ask for the period of the style."""
    name = labels.one("era")
    return phrasebook.turn("era", "answers", era=name) if name else None


def uses(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn | None:
    """Ask for a use that it suits."""
    fitting = labels.sure("use") or labels.guessed("use")
    return phrasebook.turn("uses", "answers", use=phrasebook.rng.choice(fitting)) if fitting else None


def pace(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn:
    """Ask for the pace: slow, medium or fast by the measured tempo in the prompt, unknown without one."""
    kind = phrasebook.rng.choice(("questions", "slow_questions", "fast_questions"))
    question = phrasebook.pick("pace", kind)
    if phrasebook.rng.random() < 0.15:
        return Turn(question, phrasebook.pick("pace", "unknown"))
    bpm, sure = phrasebook.rng.randint(45, 200), phrasebook.rng.random() < 0.7
    question = _measured(question, tempo=(f"{bpm} BPM", sure))
    name = pace_of(bpm)
    if kind == "questions":
        return Turn(question, phrasebook.pick("pace", name if sure else "maybe", pace=name, bpm=str(bpm)))
    yes = "yes" if kind.startswith(name) else "no"
    return Turn(question, phrasebook.pick("pace", yes if sure else f"maybe_{yes}", pace=name, bpm=str(bpm)))


def cannot(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn:
    """Ask for what audio doesn't say: artist, year, title, place, words."""
    subjects = ["artist", "year", "title", "place"] + (["words"] if labels.has_voice is not False else [])
    subject = phrasebook.rng.choice(subjects)
    what = wording()["cannot"]["what"][subject]
    return Turn(phrasebook.pick("cannot", subject), phrasebook.pick("cannot", "answers", what=what))


def measured_value(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn:
    """Ask for a measured value: the one in the prompt, unknown without one."""
    topic = phrasebook.rng.choices(("tempo", "key", "loudness", "duration"), (4, 4, 1, 1))[0]
    question = phrasebook.pick("facts", topic)
    if phrasebook.rng.random() < 0.2:
        return Turn(question, phrasebook.pick("facts", "unknown", what=wording()["facts"]["what"][topic]))
    text, sure = random_value(topic, phrasebook)
    value = text.removesuffix(" BPM").removesuffix(" LUFS")
    answer = phrasebook.pick("facts", f"{topic}_{'sure' if sure else 'unsure'}", value=value)
    return Turn(_measured(question, **{topic: (text, sure)}), answer)


def tempo_and_key(labels: TrackLabels, phrasebook: Phrasebook, _: AnswerBalancer) -> Turn:
    """Ask for tempo and key, each worded as sure as it is."""
    tempo, key = random_value("tempo", phrasebook), random_value("key", phrasebook)
    question = phrasebook.rng.choice(
        ("What are the tempo and the key?", "What key and tempo is this in?", "Tempo and key, please.")
    )
    words = ["about" if tempo[1] else "probably", "is" if key[1] else "is probably"]
    answer = f"The tempo is {words[0]} {tempo[0]}, and the key {words[1]} {key[0]}."
    return Turn(_measured(question, tempo=tempo, key=key), answer)


def random_value(topic: str, phrasebook: Phrasebook) -> tuple[str, bool]:
    """Draw a value as the prompt writes it, and whether it is sure; any value will do, since the answer copies it."""
    rng = phrasebook.rng
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


CHARACTER_TOPICS: Mapping[Topic, float] = {
    style: 3.0, style_presence: 1.6, mood: 0.7, energy: 1.5, valence: 1.0, production: 0.5, era: 0.2, uses: 0.3,
    pace: 0.4, cannot: 1.2, measured_value: 1.8, tempo_and_key: 0.3,
}  # fmt: skip
"""Topics of character, with how often they come up."""
