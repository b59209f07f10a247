"""Question-answer pairs of one clip, from its true labels and the tagger's confident guesses.

True labels are stated plainly. Where only the tagger speaks, the answer hedges ("probably", "sounds like"), and
in its grey zone nothing is asked. A question that sound can't answer gets an answer that says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wording import BEAT_TAGS, GENRES, INSTRUMENTS, MOODS, VOICE_TAGS, capital, is_plural, listed, with_article

YES, NO = 0.35, 0.05
"""The tagger's probability from which a tag counts as there, and up to which it counts as absent."""
ASKABLE = (
    "piano", "acoustic guitar", "electric guitar", "violin", "cello", "flute", "trumpet", "saxophone", "clarinet",
    "church organ", "accordion", "harp", "harpsichord", "banjo", "sitar", "choir", "strings", "synthesizer",
    "electric bass", "double bass", "trombone", "oboe", "vibraphone", "electric organ", "distorted electric guitar",
)  # fmt: skip
"""Instruments that yes/no questions ask about."""
_NEAR = (
    {"acoustic guitar", "electric guitar", "distorted electric guitar", "banjo", "harp"},
    {"violin", "viola", "cello", "strings", "double bass"},
    {"electric bass", "double bass", "synth bass"},
    {"piano", "electric piano", "harpsichord"},
    {"electric organ", "church organ", "accordion", "harmonium", "harmonica"},
    {"trumpet", "trombone", "brass section", "French horn", "tuba"},
    {"flute", "recorder", "pan flute", "whistle"},
    {"synthesizer", "synth bass"},
)
"""Names too alike to deny one while another is there."""


@dataclass(frozen=True)
class QA:
    """One question and its answer."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Clip:
    """What is known of a clip: labels (true) and tags (guessed)."""

    labels: Mapping[str, Any]
    tags: Mapping[str, float]

    @property
    def style(self) -> str | None:
        """The known style in plain words; that a piece is from a game can't be heard."""
        style = self.labels.get("style")
        return None if style in (None, "game music") else style.replace(" game music", " music")

    def surely_without(self, tags: Sequence[str]) -> bool:
        """Whether the tagger is sure that none of the tags applies."""
        return all(self.tags.get(tag, 0.0) <= NO for tag in tags)

    def guessed(self, table: Mapping[str, str]) -> list[str]:
        """Words of a table whose tags are confident, surest first, each once."""
        sure = sorted((tag for tag in table if self.tags.get(tag, 0.0) >= YES), key=lambda tag: -self.tags[tag])
        return list(dict.fromkeys(table[tag] for tag in sure))


Maker = Callable[[Clip, random.Random], QA | None]


def _qa(kind: str, rng: random.Random, questions: Sequence[str], answers: Sequence[str]) -> QA:
    return QA(kind, rng.choice(questions), capital(rng.choice(answers)))


def _instruments(clip: Clip) -> list[str]:
    return list(clip.labels.get("instruments") or [])


def instruments(clip: Clip, rng: random.Random) -> QA | None:
    """Which instruments are there."""
    names, guesses = _instruments(clip), clip.guessed(INSTRUMENTS)[:3]
    if not names and not guesses:
        return None
    questions = [
        "What instruments do you hear?", "Which instruments are playing?", "What instruments are used in this music?",
        "List the instruments.", "What is playing?", "Name the instruments you can hear.",
    ]  # fmt: skip
    if clip.labels.get("solo"):
        name = names[0]
        questions += [
            "What instrument is this?",
            "What instrument is playing?",
            "Which instrument do you hear?",
        ]
        answers = [f"I hear a solo {name}.", f"{with_article(name)}, playing alone.", f"it is a solo {name}."]
    elif not names:
        answers = [f"it sounds like {listed(guesses)}.", f"probably {listed(guesses)}."]
    else:
        answers = [f"I hear {listed(names[:5])}.", f"{listed(names[:5])}."]
    return _qa("instruments", rng, questions, answers)


def lead(clip: Clip, rng: random.Random) -> QA | None:
    """Which instrument leads."""
    name = clip.labels.get("lead")
    if not name:
        return None
    questions = ["Which instrument leads?", "What plays the melody?", "What is the lead instrument?"]
    return _qa("lead", rng, questions, [f"the {name}.", f"the {name} plays the melody.", f"the {name} leads."])


def drums(clip: Clip, rng: random.Random) -> QA | None:
    """Whether there are drums."""
    there = clip.labels.get("drums")
    guessed_there = any(clip.tags.get(tag, 0.0) >= YES for tag in BEAT_TAGS)
    if there is None and not guessed_there and not clip.surely_without(BEAT_TAGS):
        return None
    questions = [
        "Are there drums?", "Do you hear drums?", "Is there a drum kit in this music?", "Does this track have drums?",
    ]  # fmt: skip
    if there is None:
        hedged = ["yes, I think there are drums.", "yes, it sounds like there are drums."]
        answers = hedged if guessed_there else ["no, I don't think there are drums.", "no, I hear no drums."]
    elif there:
        answers = ["yes, there are drums.", "yes, I hear drums."]
    else:
        answers = ["no, there are no drums.", "no, I don't hear drums."]
    return _qa("drums", rng, questions, answers)


def presence(clip: Clip, rng: random.Random) -> QA | None:
    """Whether one instrument is there, both answers equally often."""
    names = set(_instruments(clip))
    if not names or not clip.labels.get("instruments_complete", True):
        return None
    near = set().union(*(group for group in _NEAR if group & names)) | names | set(clip.labels.get("faint") or [])
    there = [name for name in ASKABLE if name in names]
    absent = [name for name in ASKABLE if name not in near]
    yes = bool(there) and rng.random() < 0.5
    name = rng.choice(there if yes else absent)
    noun, verb = with_article(name), "are" if is_plural(name) else "is"
    questions = [
        f"{capital(verb)} there {noun}?", f"Do you hear {noun}?", f"Can you hear {noun} in this track?",
        f"{capital(verb)} there {noun} in this music?",
    ]  # fmt: skip
    if yes:
        return _qa("presence", rng, questions, [f"yes, there {verb} {noun}.", f"yes, I hear {noun}."])
    return _qa("presence", rng, questions, [f"no, I don't hear {noun}.", f"no, there {verb} no {name}."])


def choice(clip: Clip, rng: random.Random) -> QA | None:
    """Which of four instruments is there."""
    names = set(_instruments(clip))
    there = [name for name in ASKABLE if name in names]
    near = set().union(*(group for group in _NEAR if group & names)) | names
    absent = [name for name in ASKABLE if name not in near]
    if not there or len(absent) < 3 or not clip.labels.get("instruments_complete", True):
        return None
    right = rng.choice(there)
    options = [right, *rng.sample(absent, 3)]
    rng.shuffle(options)
    words = ", ".join(options[:3]) + " or " + options[3]
    questions = [f"Which of these do you hear: {words}?", f"What do you hear: {words}?"]
    return _qa("choice", rng, questions, [f"{with_article(right)}.", f"I hear {with_article(right)}."])


_ENSEMBLES = {
    "solo": "a solo",
    "duo": "a duo",
    "band": "a band",
    "choir": "a choir",
    "orchestra": "an orchestra",
}


def ensemble(clip: Clip, rng: random.Random) -> QA | None:
    """Solo, duo, band, choir, orchestra, quartet."""
    name = clip.labels.get("ensemble")
    if not name:
        return None
    words = _ENSEMBLES.get(name, with_article(name))
    questions = [
        "Is this a solo, a band or an orchestra?", "Is it one player or a group?",
        "Who is playing, a soloist or a group?", "What kind of ensemble is this?",
    ]  # fmt: skip
    answers = [f"{words}.", f"it is {words}."]
    if name == "solo" and _instruments(clip):
        answers.append(f"one player: a solo {_instruments(clip)[0]}.")
    return _qa("ensemble", rng, questions, answers)


def style(clip: Clip, rng: random.Random) -> QA | None:
    """The style: stated where it is known, guessed where only the tagger speaks."""
    known, guesses = clip.style, clip.guessed(GENRES)[:2]
    questions = [
        "What genre is this?", "What style of music is this?", "What kind of music is it?", "Describe the genre.",
        "What is the genre of the music?",
    ]  # fmt: skip
    if known:
        answers = [f"{known}.", f"this is {known}."]
        if guesses and not _instruments(clip):
            answers.append(f"this is {known}; it sounds like {listed(guesses, article=False)}.")
        return _qa("style", rng, questions, answers)
    if guesses:
        words = listed(guesses, article=False)
        return _qa(
            "style",
            rng,
            questions,
            [f"it sounds like {words}.", f"probably {words}.", f"I would say {words}."],
        )
    return None


def mood(clip: Clip, rng: random.Random) -> QA | None:
    """How it feels, as far as the tagger is sure."""
    words = clip.guessed(MOODS)[:3]
    if not words:
        return None
    questions = [
        "What is the mood of the music?", "How does it feel?", "Describe the mood.", "What mood does this create?",
        "What is the atmosphere like?",
    ]  # fmt: skip
    feel = listed(words, article=False)
    return _qa("mood", rng, questions, [f"it sounds {feel}.", f"the mood seems {feel}.", f"probably {feel}."])


def voice(clip: Clip, rng: random.Random) -> QA | None:
    """Whether somebody sings; the tagger may say no, but only labels say yes."""
    there = clip.labels.get("vocals")
    if there is None:
        if clip.surely_without(VOICE_TAGS) and "choir" not in _instruments(clip):
            answers = [
                "I don't hear any singing.",
                "it sounds instrumental.",
                "probably not; I hear no voice.",
            ]
        else:
            return None
    elif there:
        answers = ["yes, there are voices.", "yes, I hear singing voices."]
    else:
        answers = ["no, it is instrumental.", "no, nobody sings.", "no, there is no singing."]
    questions = ["Is there singing?", "Are there vocals?", "Do you hear a voice?", "Does somebody sing?"]
    return _qa("voice", rng, questions, answers)


def acoustic(clip: Clip, rng: random.Random) -> QA | None:
    """Acoustic or electric and electronic."""
    known = clip.labels.get("acoustic")
    if known is None:
        return None
    questions = ["Is this acoustic or electronic?", "Are the instruments acoustic?", "Acoustic or electric?"]
    answers = ["it is acoustic.", "acoustic."] if known else ["it is electric or electronic.", "it is not acoustic."]
    return _qa("acoustic", rng, questions, answers)


def cannot_tell(clip: Clip, rng: random.Random) -> QA | None:
    """Things that this model doesn't hear."""
    subject, questions = rng.choice([
        ("who plays", ["Who is the artist?", "Who is playing this?", "Which band is this?"]),
        ("what year it is from", ["What year is this from?", "When was this recorded?"]),
        ("the title", ["What is the title of this song?", "What is this piece called?"]),
        ("the words", ["What are the lyrics about?", "What do the lyrics say?"]),
        ("the exact tempo", ["What is the tempo in BPM?", "How many beats per minute?"]),
        ("the key", ["What key is this in?", "Is it in major or minor?"]),
    ])  # fmt: skip
    return _qa("cannot_tell", rng, questions, [f"I can't tell {subject} from listening.", f"I can't hear {subject}."])


def short_description(clip: Clip, rng: random.Random) -> QA | None:
    """One sentence."""
    text = _describe(clip, rng)[:1]
    questions = [
        "Describe the audio", "Describe this music.", "What do you hear in the audio?", "Describe it in one sentence.",
        "Write a caption for this music.", "What is this?",
    ]  # fmt: skip
    return QA("short", rng.choice(questions), text[0]) if text else None


def long_description(clip: Clip, rng: random.Random) -> QA | None:
    """Several sentences."""
    text = _describe(clip, rng)
    questions = [
        "Describe the audio in detail", "Describe this music in detail.", "What can be inferred from the audio?",
        "Tell me everything you hear.", "Give a detailed description.",
    ]  # fmt: skip
    return QA("long", rng.choice(questions), " ".join(text)) if len(text) >= 2 else None


def _describe(clip: Clip, rng: random.Random) -> list[str]:
    """Sentences about the clip, the most telling first."""
    names, known = _instruments(clip), clip.style
    guesses, moods = clip.guessed(GENRES)[:2], clip.guessed(MOODS)[:2]
    sentences = []
    if clip.labels.get("solo") and names:
        tune = known.replace("traditional", "traditional tune") if known and clip.labels.get("lead") else None
        sentences.append(f"A solo {names[0]} playing {with_article(tune)}." if tune else f"A solo {names[0]}.")
    elif known and names:
        sentences.append(f"{capital(known)} with {listed(names[:3])}.")
    elif known:
        sentences.append(f"A piece of {known}.")
    elif names:
        sentences.append(f"A piece with {listed(names[:4])}.")
    elif guesses:
        sentences.append(f"Music that sounds like {listed(guesses, article=False)}.")
    if len(names) > 3 and not clip.labels.get("solo"):
        sentences.append(f"I also hear {listed(names[3:6])}.")
    if clip.labels.get("drums") is not None:
        sentences.append("There are drums." if clip.labels["drums"] else "There are no drums.")
    if clip.labels.get("vocals") is False:
        sentences.append("It is instrumental.")
    elif clip.labels.get("vocals"):
        sentences.append("There are voices.")
    if moods:
        sentences.append(f"It sounds {listed(moods, article=False)}.")
    if guesses and sentences and not known and "sounds like" not in sentences[0]:
        sentences.append(f"The genre is probably {guesses[0]}.")
    return sentences


MAKERS: tuple[Maker, ...] = (
    instruments, lead, drums, presence, choice, ensemble, style, mood, voice, acoustic, cannot_tell,
    short_description, long_description,
)  # fmt: skip
_WEIGHTS = {instruments: 3.0, drums: 2.0, presence: 2.0, lead: 1.5, cannot_tell: 0.6, acoustic: 0.7}


def conversation(clip: Clip, rng: random.Random, *, num_turns: int) -> list[QA]:
    """Draw turns of different kinds for one clip, in random order."""
    keyed = sorted(MAKERS, key=lambda maker: -(rng.random() ** (1.0 / _WEIGHTS.get(maker, 1.0))))
    turns: list[QA] = []
    for maker in keyed:
        if len(turns) == num_turns:
            break
        made = maker(clip, rng)
        if made is not None:
            turns.append(made)
    rng.shuffle(turns)
    return turns
