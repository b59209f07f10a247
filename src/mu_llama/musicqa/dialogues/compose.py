"""From a track to a conversation about it: topics in random order, and descriptions."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues import character, topics
from mu_llama.musicqa.dialogues.character import as_kind, is_piece
from mu_llama.musicqa.dialogues.phrasebook import Phrasebook, is_plural, slots_of, wording
from mu_llama.musicqa.dialogues.track_labels import ASKABLE, FAMILIES, AnswerBalancer, TrackLabels
from mu_llama.musicqa.language import a, capital, listed
from mu_llama.text.fact_prompts import MeasuredFact, with_measured
from mu_llama.text.prompts import Turn

_TOPICS = {**topics.TOPICS, **character.TOPICS}
# Topics of one or two turns that need no balancing, with how often they come up.
_OTHERS = {"short": 1.0, "long": 1.2, "caption": 0.4, "louder": 0.3, "follow": 0.8, "music": 0.15}
_BRIEF = 0.25
"""Share of plain yes/no answers that are asked for in one word."""


def compose(track: Track, *, num_turns: int, rng: random.Random, balance: AnswerBalancer | None = None) -> list[Turn]:
    """Draw a conversation about a track: topics in random order, none twice.

    Args:
        track: with labels as `TrackLabels` reads them.
        num_turns: how many questions at most; fewer where labels say too little.
        rng: the same source gives the same conversation.
        balance: evens yes and no out over a corpus.

    Example:
        >>> tags = {"instrument": ("violin",), "ensemble": ("solo",)}
        >>> track = Track("a", tags=tags, absent={"instrument": ("others",)})
        >>> turns = compose(track, num_turns=3, rng=random.Random(0))
        >>> len(turns), all(turn.answer for turn in turns)
        (3, True)
    """
    known, say, balance = TrackLabels(track), Phrasebook(rng), balance or AnswerBalancer()
    if not known.is_music:
        return _about_no_music(known, say, num_turns)
    turns: list[Turn] = []
    for name in _order(_weights(known, balance), rng):
        if len(turns) >= num_turns:
            break
        turns += _turns_of(name, known, say, balance)
    return turns[:num_turns]


def rows_of(
    track: Track, *, count: int, rng: random.Random, balance: AnswerBalancer, most_turns: int
) -> Iterator[dict[str, Any]]:
    """Rows that `mu-llama train` reads: conversations of one to `most_turns` questions."""
    for number in range(count):
        turns = compose(track, num_turns=rng.randint(1, most_turns), rng=rng, balance=balance)
        if turns:
            yield {
                "id": f"{track.id}~{number}",
                "audio": None if track.audio is None else str(track.audio),
                "turns": [{"question": turn.question, "answer": turn.answer} for turn in turns],
                "group": track.group,
            }


_DECIDED_BY = {topics.drums: "drums", topics.voice: "voice", topics.instrumental: "voice", topics.voice_kind: "voice"}
_OPEN = 3.0
"""How much more often a yes/no question is asked of music of which it can't be told beforehand."""


def _weights(known: TrackLabels, balance: AnswerBalancer) -> dict[Any, float]:
    open_ones = {
        topic: weight * _OPEN
        for topic, weight in _TOPICS.items()
        if topic in _DECIDED_BY and balance.is_open(known.track.source, _DECIDED_BY[topic])
    }
    return {**_TOPICS, **open_ones, **_OTHERS}


def _order(weights: Mapping[Any, float], rng: random.Random) -> list[Any]:
    """All keys in random order, heavy ones early (Efraimidis and Spirakis, 2006)."""
    return sorted(weights, key=lambda key: -(rng.random() ** (1.0 / weights[key])))


def _turns_of(topic: Any, known: TrackLabels, say: Phrasebook, balance: AnswerBalancer) -> list[Turn]:
    if topic == "follow":
        return topics.follow(known, say, balance)
    if topic == "louder":
        return topics.louder(known, say)
    if topic == "music":
        return [say.turn("no_music", "yes", question="is_music")]
    found = _DESCRIPTIONS[topic](known, say) if isinstance(topic, str) else topic(known, say, balance)
    turns = found if isinstance(found, list) else [found]
    return [_otherwise(_briefly(turn, say), say) for turn in turns if turn is not None]


_ADDED, _TYPED = 0.12, 0.06


def _otherwise(turn: Turn, say: Phrasebook) -> Turn:
    """Now and then ask as people do: with a word before or after, or typed without care."""
    if "\n" in turn.question:  # measured facts follow
        return turn
    drawn, words = say.rng.random(), wording()["asking"]
    if drawn < _TYPED and "(" not in turn.question:  # letters of choices stay capitals
        return replace(turn, question=turn.question.lower().rstrip("?."))
    if drawn < _TYPED + _ADDED / 2:
        return replace(turn, question=say.rng.choice(words["before"]) + turn.question)
    if drawn < _TYPED + _ADDED and turn.question.endswith(("?", ".")):
        return replace(turn, question=turn.question + say.rng.choice(words["after"]))
    return turn


_PLAIN = re.compile(r"(Yes|No)[.,]")
_HEDGES = re.compile(r"probably|think|sounds?\b|wouldn't|would", re.IGNORECASE)


def _briefly(turn: Turn, say: Phrasebook) -> Turn:
    """Now and then ask for a short answer where there is one; a guess stays one."""
    answer = turn.answer or ""
    plain = _PLAIN.match(answer)
    if plain and "\n" not in turn.question and say.rng.random() < _BRIEF:
        brief = "Probably." if plain[1] == "Yes" else "Probably not."
        short = brief if _HEDGES.search(answer) else f"{plain[1]}."
        return Turn(turn.question + say.rng.choice(wording()["brief"]["suffixes"]), short)
    return turn


_ASKABLE_OF_NO_MUSIC = (
    "instruments", "style", "mood", "energy", "valence", "voice", "drums", "short", "long", "lead", "uses", "ensemble",
    "instrumental", "caption", "acoustic", "era", "voice_kind",
)  # fmt: skip


def _about_no_music(known: TrackLabels, say: Phrasebook, num_turns: int) -> list[Turn]:
    """Whatever is asked: there is no music to speak of."""
    kind, rng = known.one("sound") or "noise", say.rng
    topics_asked = rng.sample(_ASKABLE_OF_NO_MUSIC, min(num_turns, len(_ASKABLE_OF_NO_MUSIC)))
    questions = [say.pick(topic, "questions") for topic in topics_asked]
    if rng.random() < 0.7:
        questions[0] = say.pick("no_music", "is_music")
    if rng.random() < 0.5:
        topic = rng.choice(("tempo", "key"))
        text, sure = character.random_value(topic, say)
        asked = with_measured(say.pick("facts", topic), {topic: MeasuredFact(text, float(sure))})
        questions[-1] = asked if rng.random() < 0.7 else say.pick("facts", topic)
    if rng.random() < 0.4:
        name = rng.choice(ASKABLE)
        questions.append(say.pick("presence", "questions", **slots_of(name)))
    return [_otherwise(Turn(question, say.pick("no_music", kind)), say) for question in questions]


_NAMES_MORE = 0.3
"""How often a long description goes on to instruments that are heard less."""
_DRUMS, _NO_DRUMS = ("There are drums.", "A drum kit plays."), ("There are no drums.", "No drums are heard.")
_NO_VOICE = ("It is instrumental.", "Nobody sings.", "There are no vocals.")
_MAYBE = {
    ("drums", True): ("I think there are drums.", "It sounds like there are drums."),
    ("drums", False): ("I don't think there are drums.", "I hear no drums, I think."),
    ("singing", True): ("I think somebody sings.", "It sounds like there is a voice."),
    ("singing", False): ("It sounds instrumental.", "I think it is instrumental."),
}


def short(known: TrackLabels, say: Phrasebook) -> Turn | None:
    """One sentence."""
    text = _opening(known, say)
    return Turn(say.pick("short", "questions"), text) if text else None


def long(known: TrackLabels, say: Phrasebook) -> Turn | None:
    """Several sentences, what is surest first."""
    sentences = [sentence for sentence in (_opening(known, say), *_details(known, say)) if sentence]
    return Turn(say.pick("long", "questions"), " ".join(sentences)) if len(sentences) >= 3 else None


def caption(known: TrackLabels, say: Phrasebook) -> Turn | None:
    """Comma-separated, as text-to-music prompts are written."""
    parts: list[str] = []
    moods, genre = known.guessed("mood")[:2], known.one("genre") or next(iter(known.guessed("genre")), None)
    if genre:
        parts.append(genre)
    names = known.clear_instruments
    parts += list(names[:4] or known.guessed("instrument")[:2])
    if known.is_solo and names and known.is_clear("solo"):
        parts[-1] = f"solo {parts[-1]}"
    if "choir" not in parts:
        sung = _surely(known, "singing")
        parts += [] if sung is None else [_sung(known) if sung else "instrumental"]
    energy = next(iter(known.guessed("energy")), None)
    parts += [*moods, *([f"{energy} energy"] if energy else [])]
    return Turn(say.pick("caption", "questions"), capital(", ".join(parts)) + ".") if len(parts) >= 3 else None


def _surely(known: TrackLabels, what: str) -> bool | None:
    """Whether drums or singing are there by label, if a description may say so; else None."""
    there = known.has_drums if what == "drums" else known.has_voice
    return there if there is not None and known.is_clear(what if there else f"no {what}") else None


def _opening(known: TrackLabels, say: Phrasebook) -> str | None:
    names, genre, rng = known.clear_instruments, known.one("genre"), say.rng
    mood = next(iter(known.guessed("mood")), None)
    feel = f"; it sounds {mood}" if mood and rng.random() < 0.5 else ""
    if known.is_solo and known.is_clear("solo"):
        if names:
            what = rng.choice(("A solo {0}", "{1} playing alone", "A piece for solo {0}"))
            tail = f", {as_kind(genre)}" if genre and rng.random() < 0.5 else feel
            return what.format(names[0], capital(a(names[0]))) + f"{tail}."
        if _surely(known, "singing"):
            return rng.choice((f"{capital(_sung(known))} singing alone.", "Somebody sings alone, without instruments."))
    heard, opening = list[str](), _subject(known, say)
    if players := [name for name in _players(known, say) if name not in opening.lower()]:
        heard.append(listed([a(name) for name in players[: rng.choice((1, 2, 2))]]))
    if _surely(known, "singing") and "choir" not in names and not opening.lower().endswith("choir"):
        heard.insert(0, _sung(known))
    if not (heard or genre or known.guessed("genre") or known.one("ensemble")):
        return None
    return f"{opening} with {' and '.join(heard)}{feel}." if heard else f"{opening}{feel}."


def _subject(known: TrackLabels, say: Phrasebook) -> str:
    """What the first sentence is about: a style, an ensemble, or a guess."""
    genre, ensemble, rng = known.one("genre"), known.one("ensemble"), say.rng
    if ensemble in _NAMED_ENSEMBLES and known.is_clear(str(ensemble)) and rng.random() < 0.5:
        return capital(a(str(ensemble)))
    if genre and is_piece(genre):
        return capital(a(genre))
    if genre:
        music = as_kind(genre)
        return f"{rng.choice(('A piece of', 'A track of', 'Some'))} {music}" if rng.random() < 0.6 else capital(music)
    guess = next(iter(known.guessed("genre")), None)
    if guess and not known.clear_instruments:
        return f"A track that sounds like {as_kind(guess)}"
    return capital(a(rng.choice(("piece", "track"))))


_NAMED_ENSEMBLES = ("choir", "orchestra", "string orchestra", "string quartet")
_LOOSE = {member: family for family in ("guitar", "bass", "brass", "organ") for member in FAMILIES[family]}


def _players(known: TrackLabels, say: Phrasebook) -> tuple[str, ...]:
    """Instruments from the most heard; those of a band are often named by family, as a listener would in a mix."""
    names = known.clear_instruments
    if known.one("ensemble") != "band" or say.rng.random() < 0.4:
        return names
    return tuple(dict.fromkeys(_LOOSE.get(name, name) for name in names))


def _sung(known: TrackLabels) -> str:
    return {"female": "a female voice", "choir": "a choir"}.get(known.one("voice") or "", "a voice")


def _details(known: TrackLabels, say: Phrasebook) -> list[str]:
    """Further sentences in an order that varies a little."""
    rng, names, sentences = say.rng, known.clear_instruments, list[str]()
    if len(names) > 3 and rng.random() < _NAMES_MORE:
        things = listed([a(name) for name in names[2:5]])
        verb = "are" if is_plural(names[2]) else "is"
        sentences.append(rng.choice((f"I also hear {things}.", f"There {verb} also {things}.")))
    elif not known.instruments and known.guessed("instrument"):
        sentences.append(f"I think I hear {listed([a(name) for name in known.guessed('instrument')[:3]])}.")
    if (lead := known.one("lead")) in names and not known.is_solo:
        sentences.append(rng.choice((f"The {lead} plays the melody.", f"The {lead} leads.")))
    if not known.is_solo:
        sentences += _whether(known, "drums", _DRUMS, _NO_DRUMS, say)
    if not _surely(known, "singing"):
        sentences += _whether(known, "singing", (), _NO_VOICE, say)
    if moods := known.guessed("mood")[:3]:
        sentences.append(rng.choice(("It sounds {0}.", "The mood seems {0}.")).format(listed(moods)))
    if energy := next(iter(known.guessed("energy")), None):
        words = {"low": "gentle and calm", "medium": "moderately energetic", "high": "powerful and energetic"}
        sentences.append(rng.choice(("It seems {0}.", "The music is {0}, I would say.")).format(words[energy]))
    if not known.one("genre") and (genres := known.guessed("genre")[:2]):
        kinds = " or ".join(as_kind(genre) for genre in genres)
        sentences.append(rng.choice(("It is probably {0}.", "It sounds like {0}.")).format(kinds))
    if kind := known.one("production"):
        sentences.append("The sound is acoustic." if kind == "acoustic" else "The sound is electric or electronic.")
    if fitting := known.sure("use") or known.guessed("use"):
        sentences.append(say.pick("uses", "answers", use=rng.choice(fitting)))
    return sentences[: rng.randint(4, 6)]


def _whether(known: TrackLabels, what: str, yes: tuple[str, ...], no: tuple[str, ...], say: Phrasebook) -> list[str]:
    """A sentence on drums or singing: by label where it is heard beyond doubt, else as a tagger guesses."""
    label, heard = (known.has_drums, known.drums_heard) if what == "drums" else (known.has_voice, known.sings)
    if label is None and heard is not None:
        return [say.rng.choice(_MAYBE[what, heard])]
    sure = _surely(known, what)
    options = () if sure is None else yes if sure else no
    return [say.rng.choice(options)] if options else []


_DESCRIPTIONS = {"short": short, "long": long, "caption": caption}
