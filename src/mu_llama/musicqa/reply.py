"""What is written about one track: answers, questions with answers, a caption, choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FIXED_KEYS = ("description", "detailed_description", "heard", "inferred")
"""What their answers are called in a writer's JSON."""
NUM_DISTRACTORS = 3


@dataclass(frozen=True)
class Pair:
    """A question and its answer."""

    question: str
    """As a listener would ask."""
    answer: str
    """True of the track."""


@dataclass(frozen=True)
class Choice:
    """A question with one right answer among four."""

    question: str
    """As a listener would ask."""
    answer: str
    """The right one."""
    distractors: tuple[str, ...]
    """Three wrong ones."""


@dataclass(frozen=True)
class Reply:
    """All that a writer makes of a track."""

    fixed: tuple[str, ...]
    """Answers to `FIXED_QUESTIONS`."""
    pairs: tuple[Pair, ...] = ()
    """Open questions."""
    caption: str = ""
    """One or two sentences for text-to-music."""
    choices: tuple[Choice, ...] = ()
    """Four-choice questions."""

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON that a writer is asked for."""
        return {
            **dict(zip(FIXED_KEYS, self.fixed, strict=True)),
            "pairs": [{"question": pair.question, "answer": pair.answer} for pair in self.pairs],
            "caption": self.caption,
            "choices": [
                {"question": choice.question, "answer": choice.answer, "distractors": list(choice.distractors)}
                for choice in self.choices
            ],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Reply:
        """Undo `to_dict`; the values must fit, as `checks.shape_problems` sees to."""
        return cls(
            fixed=tuple(plain[key] for key in FIXED_KEYS),
            pairs=tuple(Pair(pair["question"], pair["answer"]) for pair in plain["pairs"]),
            caption=plain["caption"],
            choices=tuple(
                Choice(choice["question"], choice["answer"], tuple(choice["distractors"]))
                for choice in plain["choices"]
            ),
        )

    def statements(self) -> Iterator[tuple[str, str]]:
        """Every text that claims something of the track, with where it stands."""
        yield from zip(FIXED_KEYS, self.fixed, strict=True)
        for number, pair in enumerate(self.pairs, start=1):
            yield f"pairs {number}", pair.answer
        yield "caption", self.caption


@dataclass(frozen=True)
class ReplySpec:
    """How much is written about each track."""

    num_pairs: int = 5
    """Open questions."""
    num_choices: int = 2
    """Four-choice questions."""

    def schema(self) -> dict[str, Any]:
        """JSON Schema of a reply, as structured-output servers and constrained decoding take it."""

        def text(most: int) -> dict[str, Any]:
            return {"type": "string", "minLength": 3, "maxLength": most}

        def record(**properties: Any) -> dict[str, Any]:
            return {
                "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
            }  # fmt: skip

        def several(items: dict[str, Any], count: int) -> dict[str, Any]:
            return {"type": "array", "items": items, "minItems": count, "maxItems": count}

        pair = record(question=text(200), answer=text(400))
        choice = record(question=text(200), answer=text(80), distractors=several(text(80), NUM_DISTRACTORS))
        return record(
            description=text(300),
            detailed_description=text(900),
            heard=text(500),
            inferred=text(500),
            pairs=several(pair, self.num_pairs),
            caption=text(400),
            choices=several(choice, self.num_choices),
        )
