"""Wordings of questions and answers, drawn at random and filled."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from mu_llama.musicqa.language import a, capital
from mu_llama.text.prompts import Turn

_PLURAL = frozenset(
    ("drums", "strings", "bells", "bagpipes", "steel drums", "timpani", "vocals", "congas", "woodwinds")
)


@cache
def wording() -> dict[str, Any]:
    """Everything in `wording.toml`, by topic."""
    text = resources.files("mu_llama.musicqa.dialogues").joinpath("wording.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def is_plural(noun: str) -> bool:
    """Whether a verb after a noun is plural.

    Example:
        >>> is_plural("drums"), is_plural("brass")
        (True, False)
    """
    return noun in _PLURAL


def slots_of(thing: str) -> dict[str, str]:
    """Give the slots of wordings about one thing."""
    verb = "are" if is_plural(thing) else "is"
    return {"thing": thing, "a_thing": a(thing), "A_thing": capital(a(thing)), "is": verb, "Is": capital(verb)}


class Phrasebook:
    """Draws wordings.

    Args:
        rng: the same source gives the same words.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def pick(self, topic: str, kind: str, **slots: str) -> str:
        """Draw a wording of a kind and fill it; all but questions begin with a capital letter."""
        options: Sequence[str] = wording()[topic][kind]
        text = self.rng.choice(options).format_map(slots)
        return text if kind.endswith("questions") or kind == "questions" else capital(text)

    def turn(self, topic: str, answer: str, *, question: str = "questions", **slots: str) -> Turn:
        """Draw a question of a topic and its answer of a kind."""
        return Turn(self.pick(topic, question, **slots), self.pick(topic, answer, **slots))
