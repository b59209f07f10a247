"""From a track to a conversation about it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues import character, describing, topics
from mu_llama.musicqa.dialogues.balance import AnswerBalancer
from mu_llama.musicqa.dialogues.knowledge import ASKABLE, TrackLabels
from mu_llama.musicqa.dialogues.wording import Phrasebook, slots_of, wording
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
    found = getattr(describing, topic)(known, say) if isinstance(topic, str) else topic(known, say, balance)
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
