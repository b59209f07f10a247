"""From a track to a conversation about it: topics in random order, and descriptions."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import listed
from mu_llama.musicqa.dialogues import character, topics
from mu_llama.musicqa.dialogues.character import as_kind, is_piece
from mu_llama.musicqa.dialogues.phrasebook import Phrasebook, is_plural, slots_of, wording
from mu_llama.musicqa.dialogues.track_labels import ASKABLE, FAMILIES, AnswerBalancer, TrackLabels
from mu_llama.musicqa.language import a, capital
from mu_llama.text.fact_prompts import MeasuredFact, with_measured
from mu_llama.text.prompts import Turn

_TOPICS = {**topics.SOUND_TOPICS, **character.CHARACTER_TOPICS}
# Topics of one or two turns that need no balancing, with how often they come up.
_OTHERS = {"short": 1.0, "long": 1.2, "caption": 0.4, "louder": 0.3, "follow": 0.8, "music": 0.15}
_BRIEF = 0.25
"""Share of plain yes/no answers that are asked for in one word."""


def compose(track: Track, *, num_turns: int, rng: random.Random, balancer: AnswerBalancer | None = None) -> list[Turn]:
    """Draw a conversation about a track: topics in random order, none twice.

    Args:
        track: with labels as `TrackLabels` reads them.
        num_turns: how many questions at most; fewer where labels say too little.
        rng: the same source gives the same conversation.
        balancer: keeps yes and no even over a corpus.

    Example:
        >>> tags = {"instrument": ("violin",), "ensemble": ("solo",)}
        >>> track = Track("a", tags=tags, absent={"instrument": ("others",)})
        >>> turns = compose(track, num_turns=3, rng=random.Random(0))
        >>> len(turns), all(turn.answer for turn in turns)
        (3, True)
    """
    labels, phrasebook, balancer = TrackLabels(track), Phrasebook(rng), balancer or AnswerBalancer()
    if not labels.is_music:
        return _about_no_music(labels, phrasebook, num_turns)
    turns: list[Turn] = []
    for name in _order(_weights(labels, balancer), rng):
        if len(turns) >= num_turns:
            break
        turns += _turns_of(name, labels, phrasebook, balancer)
    return turns[:num_turns]


def conversation_rows(
    track: Track, *, count: int, rng: random.Random, balancer: AnswerBalancer, max_turns: int
) -> Iterator[dict[str, Any]]:
    """Rows that `mu-llama train` reads: conversations of one to `max_turns` questions."""
    for number in range(count):
        turns = compose(track, num_turns=rng.randint(1, max_turns), rng=rng, balancer=balancer)
        if turns:
            yield {
                "id": f"{track.id}~{number}",
                "audio": None if track.audio is None else str(track.audio),
                "turns": [{"question": turn.question, "answer": turn.answer} for turn in turns],
                "group": track.group,
            }


_DECIDED_BY = {topics.drums: "drums", topics.voice: "voice", topics.instrumental: "voice", topics.voice_kind: "voice"}
_OPEN = 3.0
"""Weight of a yes/no question in a source where both answers are frequent."""


def _weights(labels: TrackLabels, balancer: AnswerBalancer) -> dict[Any, float]:
    open_ones = {
        topic: weight * _OPEN
        for topic, weight in _TOPICS.items()
        if topic in _DECIDED_BY and balancer.is_open(labels.track.source, _DECIDED_BY[topic])
    }
    return {**_TOPICS, **open_ones, **_OTHERS}


def _order(weights: Mapping[Any, float], rng: random.Random) -> list[Any]:
    """Shuffle by weight, heavy ones early (weighted sampling without replacement, Efraimidis and Spirakis, 2006)."""
    return sorted(weights, key=lambda key: -(rng.random() ** (1.0 / weights[key])))


def _turns_of(topic: Any, labels: TrackLabels, phrasebook: Phrasebook, balancer: AnswerBalancer) -> list[Turn]:
    if topic == "follow":
        return topics.follow(labels, phrasebook, balancer)
    if topic == "louder":
        return topics.louder(labels, phrasebook)
    if topic == "music":
        return [phrasebook.turn("no_music", "yes", question="is_music")]
    drawn = _DESCRIPTIONS[topic](labels, phrasebook) if isinstance(topic, str) else topic(labels, phrasebook, balancer)
    turns = drawn if isinstance(drawn, list) else [drawn]
    return [_vary_typing(_ask_for_one_word(turn, phrasebook), phrasebook) for turn in turns if turn is not None]


_ADDED, _TYPED = 0.12, 0.06


def _vary_typing(turn: Turn, phrasebook: Phrasebook) -> Turn:
    """Change how some questions are typed: a word before or after, or lower case without punctuation."""
    if "\n" in turn.question:  # measured facts follow
        return turn
    drawn, words = phrasebook.rng.random(), wording()["asking"]
    if drawn < _TYPED and "(" not in turn.question:  # letters of choices stay capitals
        return replace(turn, question=turn.question.lower().rstrip("?."))
    if drawn < _TYPED + _ADDED / 2:
        return replace(turn, question=phrasebook.rng.choice(words["before"]) + turn.question)
    if drawn < _TYPED + _ADDED and turn.question.endswith(("?", ".")):
        return replace(turn, question=turn.question + phrasebook.rng.choice(words["after"]))
    return turn


_PLAIN = re.compile(r"(Yes|No)[.,]")
_HEDGES = re.compile(r"probably|think|sounds?\b|wouldn't|would", re.IGNORECASE)


def _ask_for_one_word(turn: Turn, phrasebook: Phrasebook) -> Turn:
    """Ask some plain yes/no questions for one word; a hedged answer stays hedged."""
    answer = turn.answer or ""
    plain = _PLAIN.match(answer)
    if plain and "\n" not in turn.question and phrasebook.rng.random() < _BRIEF:
        brief = "Probably." if plain[1] == "Yes" else "Probably not."
        short_answer = brief if _HEDGES.search(answer) else f"{plain[1]}."
        return Turn(turn.question + phrasebook.rng.choice(wording()["brief"]["suffixes"]), short_answer)
    return turn


_ASKABLE_OF_NO_MUSIC = (
    "instruments", "style", "mood", "energy", "valence", "voice", "drums", "short", "long", "lead", "uses", "ensemble",
    "instrumental", "caption", "acoustic", "era", "voice_kind",
)  # fmt: skip


def _about_no_music(labels: TrackLabels, phrasebook: Phrasebook, num_turns: int) -> list[Turn]:
    """Ask about audio that is no music; every answer says so."""
    kind, rng = labels.one("sound") or "noise", phrasebook.rng
    topics_asked = rng.sample(_ASKABLE_OF_NO_MUSIC, min(num_turns, len(_ASKABLE_OF_NO_MUSIC)))
    questions = [phrasebook.pick(topic, "questions") for topic in topics_asked]
    if rng.random() < 0.7:
        questions[0] = phrasebook.pick("no_music", "is_music")
    if rng.random() < 0.5:
        topic = rng.choice(("tempo", "key"))
        text, sure = character.random_value(topic, phrasebook)
        asked = with_measured(phrasebook.pick("facts", topic), {topic: MeasuredFact(text, float(sure))})
        questions[-1] = asked if rng.random() < 0.7 else phrasebook.pick("facts", topic)
    if rng.random() < 0.4:
        name = rng.choice(ASKABLE)
        questions.append(phrasebook.pick("presence", "questions", **slots_of(name)))
    return [_vary_typing(Turn(question, phrasebook.pick("no_music", kind)), phrasebook) for question in questions]


_NAMES_MORE = 0.3
"""How often a long description names quieter instruments, too."""
_DRUMS, _NO_DRUMS = ("There are drums.", "A drum kit plays."), ("There are no drums.", "No drums are heard.")
_NO_VOICE = ("It is instrumental.", "Nobody sings.", "There are no vocals.")
_MAYBE = {
    ("drums", True): ("I think there are drums.", "It sounds like there are drums."),
    ("drums", False): ("I don't think there are drums.", "I hear no drums, I think."),
    ("singing", True): ("I think somebody sings.", "It sounds like there is a voice."),
    ("singing", False): ("It sounds instrumental.", "I think it is instrumental."),
}


def describe_briefly(labels: TrackLabels, phrasebook: Phrasebook) -> Turn | None:
    """Describe a track in one sentence."""
    text = _opening(labels, phrasebook)
    return Turn(phrasebook.pick("short", "questions"), text) if text else None


def describe_at_length(labels: TrackLabels, phrasebook: Phrasebook) -> Turn | None:
    """Describe a track in several sentences, the surest first."""
    sentences = [sentence for sentence in (_opening(labels, phrasebook), *_details(labels, phrasebook)) if sentence]
    return Turn(phrasebook.pick("long", "questions"), " ".join(sentences)) if len(sentences) >= 3 else None


def caption_for_generation(labels: TrackLabels, phrasebook: Phrasebook) -> Turn | None:
    """Describe a track as text-to-music prompts are written: words separated by commas."""
    parts: list[str] = []
    moods, genre = labels.guessed("mood")[:2], labels.one("genre") or next(iter(labels.guessed("genre")), None)
    if genre:
        parts.append(genre)
    names = labels.clear_instruments
    parts += list(names[:4] or labels.guessed("instrument")[:2])
    if labels.is_solo and names and labels.is_clear("solo"):
        parts[-1] = f"solo {parts[-1]}"
    if "choir" not in parts:
        sung = _clear_presence(labels, "singing")
        parts += [] if sung is None else [_voice_phrase(labels) if sung else "instrumental"]
    energy = next(iter(labels.guessed("energy")), None)
    parts += [*moods, *([f"{energy} energy"] if energy else [])]
    return Turn(phrasebook.pick("caption", "questions"), capital(", ".join(parts)) + ".") if len(parts) >= 3 else None


def _clear_presence(labels: TrackLabels, what: str) -> bool | None:
    """Whether there are drums or singing; None where labels don't say or aren't clear enough for a description."""
    present = labels.has_drums if what == "drums" else labels.has_voice
    return present if present is not None and labels.is_clear(what if present else f"no {what}") else None


def _opening(labels: TrackLabels, phrasebook: Phrasebook) -> str | None:
    names, genre, rng = labels.clear_instruments, labels.one("genre"), phrasebook.rng
    mood = next(iter(labels.guessed("mood")), None)
    impression = f"; it sounds {mood}" if mood and rng.random() < 0.5 else ""
    if labels.is_solo and labels.is_clear("solo"):
        if names:
            what = rng.choice(("A solo {0}", "{1} playing alone", "A piece for solo {0}"))
            tail = f", {as_kind(genre)}" if genre and rng.random() < 0.5 else impression
            return what.format(names[0], capital(a(names[0]))) + f"{tail}."
        if _clear_presence(labels, "singing"):
            return rng.choice(
                (f"{capital(_voice_phrase(labels))} singing alone.", "Somebody sings alone, without instruments.")
            )
    sounds, opening = list[str](), _subject(labels, phrasebook)
    if players := [name for name in _players(labels, phrasebook) if name not in opening.lower()]:
        sounds.append(listed([a(name) for name in players[: rng.choice((1, 2, 2))]]))
    if _clear_presence(labels, "singing") and "choir" not in names and not opening.lower().endswith("choir"):
        sounds.insert(0, _voice_phrase(labels))
    if not (sounds or genre or labels.guessed("genre") or labels.one("ensemble")):
        return None
    return f"{opening} with {' and '.join(sounds)}{impression}." if sounds else f"{opening}{impression}."


def _subject(labels: TrackLabels, phrasebook: Phrasebook) -> str:
    """Begin the first sentence: with a style, an ensemble, or a guess."""
    genre, ensemble, rng = labels.one("genre"), labels.one("ensemble"), phrasebook.rng
    if ensemble in _NAMED_ENSEMBLES and labels.is_clear(str(ensemble)) and rng.random() < 0.5:
        return capital(a(str(ensemble)))
    if genre and is_piece(genre):
        return capital(a(genre))
    if genre:
        music = as_kind(genre)
        return f"{rng.choice(('A piece of', 'A track of', 'Some'))} {music}" if rng.random() < 0.6 else capital(music)
    guess = next(iter(labels.guessed("genre")), None)
    if guess and not labels.clear_instruments:
        return f"A track that sounds like {as_kind(guess)}"
    return capital(a(rng.choice(("piece", "track"))))


_NAMED_ENSEMBLES = ("choir", "orchestra", "string orchestra", "string quartet")
_LOOSE = {member: family for family in ("guitar", "bass", "brass", "organ") for member in FAMILIES[family]}


def _players(labels: TrackLabels, phrasebook: Phrasebook) -> tuple[str, ...]:
    """Clear instruments, the loudest first; those of a band are often named by family, as listeners do in a mix."""
    names = labels.clear_instruments
    if labels.one("ensemble") != "band" or phrasebook.rng.random() < 0.4:
        return names
    return tuple(dict.fromkeys(_LOOSE.get(name, name) for name in names))


def _voice_phrase(labels: TrackLabels) -> str:
    return {"female": "a female voice", "choir": "a choir"}.get(labels.one("voice") or "", "a voice")


def _details(labels: TrackLabels, phrasebook: Phrasebook) -> list[str]:
    """Write further sentences; which ones and how many varies."""
    rng, names, sentences = phrasebook.rng, labels.clear_instruments, list[str]()
    if len(names) > 3 and rng.random() < _NAMES_MORE:
        things = listed([a(name) for name in names[2:5]])
        verb = "are" if is_plural(names[2]) else "is"
        sentences.append(rng.choice((f"I also hear {things}.", f"There {verb} also {things}.")))
    elif not labels.instruments and labels.guessed("instrument"):
        sentences.append(f"I think I hear {listed([a(name) for name in labels.guessed('instrument')[:3]])}.")
    if (lead := labels.one("lead")) in names and not labels.is_solo:
        sentences.append(rng.choice((f"The {lead} plays the melody.", f"The {lead} leads.")))
    if not labels.is_solo:
        sentences += _presence_sentences(labels, "drums", _DRUMS, _NO_DRUMS, phrasebook)
    if not _clear_presence(labels, "singing"):
        sentences += _presence_sentences(labels, "singing", (), _NO_VOICE, phrasebook)
    if moods := labels.guessed("mood")[:3]:
        sentences.append(rng.choice(("It sounds {0}.", "The mood seems {0}.")).format(listed(moods)))
    if energy := next(iter(labels.guessed("energy")), None):
        words = {"low": "gentle and calm", "medium": "moderately energetic", "high": "powerful and energetic"}
        sentences.append(rng.choice(("It seems {0}.", "The music is {0}, I would say.")).format(words[energy]))
    if not labels.one("genre") and (genres := labels.guessed("genre")[:2]):
        kinds = " or ".join(as_kind(genre) for genre in genres)
        sentences.append(rng.choice(("It is probably {0}.", "It sounds like {0}.")).format(kinds))
    if kind := labels.one("production"):
        sentences.append("The sound is acoustic." if kind == "acoustic" else "The sound is electric or electronic.")
    if fitting := labels.sure("use") or labels.guessed("use"):
        sentences.append(phrasebook.pick("uses", "answers", use=rng.choice(fitting)))
    return sentences[: rng.randint(4, 6)]


def _presence_sentences(
    labels: TrackLabels, what: str, yes: tuple[str, ...], no: tuple[str, ...], phrasebook: Phrasebook
) -> list[str]:
    """Write a sentence on drums or singing: stated where a label is clear, hedged where only a tagger guesses."""
    label, belief = (labels.has_drums, labels.plays_drums) if what == "drums" else (labels.has_voice, labels.sings)
    if label is None and belief is not None:
        return [phrasebook.rng.choice(_MAYBE[what, belief])]
    sure = _clear_presence(labels, what)
    options = () if sure is None else yes if sure else no
    return [phrasebook.rng.choice(options)] if options else []


_DESCRIPTIONS = {"short": describe_briefly, "long": describe_at_length, "caption": caption_for_generation}
