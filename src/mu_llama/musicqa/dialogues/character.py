"""Topics of what music is like: style, mood, energy, era, use, and what can't be heard."""

from __future__ import annotations

from collections.abc import Mapping

from mu_llama.measured import Measured, with_measured
from mu_llama.musicqa.dialogues.balance import Balance
from mu_llama.musicqa.dialogues.knowledge import Knowledge
from mu_llama.musicqa.dialogues.topics import GENRES, Topic, alike
from mu_llama.musicqa.dialogues.wording import Say, wording
from mu_llama.musicqa.english import capital, listed
from mu_llama.prompts import Turn

SLOW_BELOW_BPM, FAST_ABOVE_BPM = 90.0, 130.0
_MARGIN_BPM = 6.0
_KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_ENERGY_WORDS = {"low": "calm", "medium": "moderate", "high": "energetic"}


def style(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """The style: stated where it is known, guessed where only a tagger speaks."""
    name, guesses = known.one("genre"), known.guessed("genre")[:2]
    if name:
        return say.turn("style", "known", style=name, Style=capital(name))
    return say.turn("style", "maybe", style=listed(guesses)) if guesses else None


def style_presence(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Whether it is one genre."""
    name = known.one("genre")
    if name and say.rng.random() < 0.6:
        if say.rng.random() < 0.5:
            return say.turn("style_presence", "yes", style=name)
        others = [other for other in GENRES if not alike(name, other) and other not in known.guessed("genre")]
        return say.turn("style_presence", "no", style=say.rng.choice(others)) if others else None
    doubts = [other for other in known.doubted("genre") if not name or not alike(name, other)]
    drawn = balance.draw("style", known.guessed("genre"), doubts, say.rng)
    if drawn is None:
        return None
    return say.turn("style_presence", "maybe_yes" if drawn[1] else "maybe_no", style=drawn[0])


def mood(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """How it feels, as far as a tagger is sure."""
    moods = known.guessed("mood")[:3]
    return say.turn("mood", "maybe", moods=listed(moods)) if moods else None


def energy(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Low, medium or high energy."""
    level = next(iter(known.guessed("energy")), None)
    if level is None or not balance.keeps_level("energy", level, say.rng):
        return None
    if level == "medium" or say.rng.random() < 0.5:
        return say.turn("energy", level)
    kind = say.rng.choice(("yes_questions", "no_questions"))
    answer = "yes" if (kind == "yes_questions") == (level == "high") else "no"
    return say.turn("energy", answer, question=kind, energy=_ENERGY_WORDS[level])


def valence(known: Knowledge, say: Say, balance: Balance) -> Turn | None:
    """Dark, neutral or bright."""
    level = next(iter(known.guessed("valence")), None)
    return say.turn("valence", level) if level and balance.keeps_level("valence", level, say.rng) else None


def production(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """Acoustic, or electric and electronic."""
    kind = known.one("production")
    return say.turn("acoustic", kind) if kind else None


def era(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """The period of a style."""
    name = known.one("era")
    return say.turn("era", "answers", era=name) if name else None


def uses(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """What it would suit."""
    fitting = known.sure("use") or known.guessed("use")
    return say.turn("uses", "answers", use=say.rng.choice(fitting)) if fitting else None


def pace(known: Knowledge, say: Say, _: Balance) -> Turn | None:
    """Slow, medium or fast: by labels, or by a measured tempo in the prompt."""
    question = say.pick("pace", "questions")
    if say.rng.random() < 0.5:
        bpm = say.rng.randint(50, 190)
        return Turn(_measured(question, say, tempo=f"{bpm} BPM")[0], say.pick("pace", pace_of(bpm) or "medium"))
    tempo = known.track.facts.get("tempo_bpm")
    if not isinstance(tempo, (int, float)) or pace_of(tempo, margin_bpm=_MARGIN_BPM) is None:
        return None
    return Turn(question, say.pick("pace", pace_of(tempo) or "medium"))


def pace_of(bpm: float, *, margin_bpm: float = 0.0) -> str | None:
    """Slow, medium or fast; None within a margin of the borders.

    Example:
        >>> pace_of(60), pace_of(100), pace_of(150), pace_of(91, margin_bpm=6)
        ('slow', 'medium', 'fast', None)
    """
    if min(abs(bpm - SLOW_BELOW_BPM), abs(bpm - FAST_ABOVE_BPM)) < margin_bpm:
        return None
    return "slow" if bpm < SLOW_BELOW_BPM else "fast" if bpm > FAST_ABOVE_BPM else "medium"


def cannot(known: Knowledge, say: Say, _: Balance) -> Turn:
    """What no sound tells: who, when, its title, its words."""
    subject = say.rng.choice(("artist", "year", "title", "words", "place"))
    what = wording()["cannot"]["what"][subject]
    return Turn(say.pick("cannot", subject), say.pick("cannot", "answers", what=what))


def facts(known: Knowledge, say: Say, _: Balance) -> Turn:
    """A measured value, read from the prompt; without one it isn't known."""
    topic = say.rng.choices(("tempo", "key", "loudness", "duration"), (4, 4, 1, 1))[0]
    question = say.pick("facts", topic)
    if say.rng.random() < 0.2:
        return Turn(question, say.pick("facts", "unknown", what=wording()["facts"]["what"][topic]))
    text, is_sure = _random_value(topic, say)
    question, is_sure = _measured(question, say, sure=is_sure, **{topic: text})
    value = text.removesuffix(" BPM").removesuffix(" LUFS")
    return Turn(question, say.pick("facts", f"{topic}_{'sure' if is_sure else 'unsure'}", value=value))


def tempo_and_key(known: Knowledge, say: Say, _: Balance) -> Turn:
    """Both at once."""
    tempo, key = _random_value("tempo", say)[0], _random_value("key", say)[0]
    question = say.rng.choice(
        ("What are the tempo and the key?", "What key and tempo is this in?", "Tempo and key, please.")
    )
    question, _sure = _measured(question, say, sure=True, tempo=tempo, key=key)
    return Turn(question, f"The tempo is about {tempo}, and the key is {key}.")


def _random_value(topic: str, say: Say) -> tuple[str, bool]:
    """A value as the prompt carries it, and whether it is sure. Any will do: the answer is read, not heard."""
    rng = say.rng
    if topic == "tempo":
        return f"{rng.randint(40, 220)} BPM", rng.random() < 0.7
    if topic == "key":
        return f"{rng.choice(_KEYS)} {rng.choice(('major', 'minor'))}", rng.random() < 0.6
    if topic == "loudness":
        return f"{rng.uniform(-40, -5):.1f} LUFS", True
    return f"{rng.randint(0, 12)}:{rng.randint(0, 59):02d} minutes", True


def _measured(question: str, say: Say, *, sure: bool = True, **values: str) -> tuple[str, bool]:
    return with_measured(question, {name: Measured(text, 1.0 if sure else 0.0) for name, text in values.items()}), sure


TOPICS: Mapping[Topic, float] = {
    style: 2.2, style_presence: 1.2, mood: 1.0, energy: 1.8, valence: 1.2, production: 0.6, era: 0.3, uses: 0.5,
    pace: 0.6, cannot: 0.8, facts: 1.2, tempo_and_key: 0.15,
}  # fmt: skip
"""Topics of character, with how often they come up."""
