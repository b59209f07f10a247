"""Replies: what is asked of a writer about each track, and how a reply is read out of a model's text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mu_llama.errors import MuLlamaError

FIXED_KEYS = ("description", "detailed_description", "heard", "inferred")
"""What their answers are called in a writer's JSON."""
NUM_DISTRACTORS = 3


class Damaged(MuLlamaError, ValueError):  # noqa: N818 - it says what it is
    """A reply that isn't the JSON asked for: cut off, or something else; asking the same again may help.

    Args:
        text: what is wrong with it.
        prompt_tokens: what it cost all the same.
        completion_tokens: likewise.
    """

    def __init__(self, text: str, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        super().__init__(text)
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens


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
    """The texts about a track."""

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
        """Undo `to_dict`; the values must fit, see `shape_problems`."""
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
        """Stream every text that makes claims about the track, with its place."""
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

        def text(max_length: int) -> dict[str, Any]:
            return {"type": "string", "minLength": 3, "maxLength": max_length}

        def record(properties: dict[str, Any]) -> dict[str, Any]:
            return {
                "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
            }  # fmt: skip

        def several(items: dict[str, Any], count: int) -> dict[str, Any]:
            return {"type": "array", "items": items, "minItems": count, "maxItems": count}

        pair = record({"question": text(200), "answer": text(400)})
        choice = record({"question": text(200), "answer": text(80), "distractors": several(text(80), NUM_DISTRACTORS)})
        return record(
            {
                "description": text(300),
                "detailed_description": text(900),
                "heard": text(500),
                "inferred": text(500),
                "pairs": several(pair, self.num_pairs),
                "caption": text(400),
                "choices": several(choice, self.num_choices),
            }
        )


_NAME = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad)"
# <think> (DeepSeek, Qwen and most others), [THINK] (Mistral), <|START_THINKING|> (Command), <|begin_of_thought|>,
# ◁think▷ (Kimi), <|channel|>analysis (gpt-oss), <|channel>thought (Gemma 4), <unused94> (MedGemma).
_MARK = re.compile(
    rf"""
    (?P<end>
        </\s*{_NAME}\s*> | \[/{_NAME}\] | ◁/{_NAME}▷ | <\|/{_NAME}\|> | <\|end_(?:of_)?{_NAME}\|> | <unused95>
        | <channel\|> | <\|channel\|>\s*final\b(?:\s*<\|constrain\|>\s*\w+)?(?:\s*<\|message\|>)?
    ) | (?P<begin>
        <\s*{_NAME}(?:\s[^<>]*)?> | \[{_NAME}\] | ◁{_NAME}▷ | <\|{_NAME}\|> | <\|(?:start|begin)_(?:of_)?{_NAME}\|>
        | <unused94> | <\|channel>\s*thought | <\|channel\|>
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# gpt-oss where the server dropped the special tokens: analysisThe user wants ... assistantfinal{...}
_BARE_BEGIN, _BARE_END = re.compile(r"\s*analysis(?=[A-Z{])"), "assistantfinal"
_END_OF_TURN = re.compile(r"<\|(?:end|return|call|start|im_end|eot_id|end_of_text|endoftext)\|>")


def without_thinking(text: str) -> str:
    """Remove a chat model's reasoning: give the text behind its last end mark, with or without a begin mark.

    Raises:
        Damaged: if reasoning begins and has no end; then nothing is an answer.

    Example:
        >>> without_thinking("The user wants a caption.</think>A calm piano.")
        'A calm piano.'
    """
    is_open = False
    if _BARE_BEGIN.match(text):
        before, mark, behind = text.rpartition(_BARE_END)
        text, is_open = (behind, False) if mark else (before or text, True)
    start = 0
    for match in _MARK.finditer(text):
        is_open = match["begin"] is not None
        start = start if is_open else match.end()
    if is_open:
        raise Damaged("its reasoning has no end, so there is no answer in it")
    return _END_OF_TURN.split(text[start:], maxsplit=1)[0]


_KEYS = frozenset((*FIXED_KEYS, "pairs", "caption", "choices"))
_MAX_BEGINNINGS = 1000  # of objects that aren't whole: each costs a walk through the rest of the text
_WRAPPING = re.compile(r"\s*(?:```|~~~)?\s*(?:json)?[\s\[\]]*(?:```|~~~)?\s*", re.IGNORECASE)


def parse_reply(text: str, reply_spec: ReplySpec | None = None, *, is_cut: bool = False) -> dict[str, Any]:
    """Find the JSON object in what a model wrote: the last whole one behind the reasoning that fits.

    It may be in a code fence, among other words, in an array, under a key of another object, or JSON as a string.

    Args:
        text: of the model.
        reply_spec: what must be in the object; None takes any.
        is_cut: whether the text ended because no more tokens were allowed. Then an object that stands amid other
            words may be a draft, and isn't taken.

    Returns:
        The object; where none fits, the last one that has some of the keys, so that it can be said what it lacks.

    Raises:
        Damaged: if there is none, or it is cut off.

    Example:
        >>> parse_reply('Sure! {"caption": "A calm piece."}')
        {'caption': 'A calm piece.'}
    """
    answer = _plain_text(without_thinking(text))
    whole, problem = _whole_objects(answer)
    partial = None
    for start, end, outer in reversed(whole):
        for plain in _unwrapped(outer):
            if reply_spec is not None and shape_problems(plain, reply_spec):
                partial = partial or (plain if _KEYS & plain.keys() else None)
            elif is_cut and not (_is_wrapping(answer[:start]) or _is_wrapping(answer[end:])):
                raise Damaged("it is cut off behind an object that may be a draft")
            else:
                return plain
    if partial is not None and not is_cut:
        return partial
    raise Damaged(f"its JSON is damaged or cut off ({problem})" if "{" in answer else "there is no JSON object in it")


def _plain_text(answer: str) -> str:
    """Decode an answer that is one JSON string as a whole."""
    try:
        inner = json.loads(answer) if answer.lstrip().startswith('"') else None
    except (ValueError, RecursionError):
        inner = None
    return inner if isinstance(inner, str) else answer


def _whole_objects(text: str) -> tuple[list[tuple[int, int, dict[str, Any]]], str]:
    """Give the outermost whole objects with start and end, and what is wrong with the first that isn't whole."""
    whole: list[tuple[int, int, dict[str, Any]]] = []
    problems: list[str] = []
    start = text.find("{")
    while start >= 0 and len(problems) < _MAX_BEGINNINGS:
        end = start + 1
        try:
            plain, end = json.JSONDecoder().raw_decode(text, start)
            whole.append((start, end, plain))
        except (ValueError, RecursionError) as error:
            problems.append(str(error)[:120])
        start = text.find("{", end)
    return whole, problems[0] if problems else "none of its objects is a reply"


def _unwrapped(value: Any, depth: int = 3) -> Iterator[dict[str, Any]]:
    """Give an object, then those in it, the last first."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if isinstance(value, dict):
        yield value
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if depth:
        for item in reversed(inner):
            yield from _unwrapped(item, depth - 1)


def _is_wrapping(text: str) -> bool:
    """Whether a text beside an object is only what is put around JSON: spaces, a code fence, brackets, a key."""
    return _WRAPPING.fullmatch(text) is not None


def shape_problems(plain: Mapping[str, Any], reply_spec: ReplySpec, *, at_most: bool = False) -> list[str]:
    """Say what is missing from a reply, too much, or of the wrong kind; `at_most` takes fewer pairs and choices."""
    problems = [f"{key} is missing or no text" for key in (*FIXED_KEYS, "caption") if not _is_text(plain.get(key))]
    problems += _list_problems(plain, "pairs", reply_spec.num_pairs, at_most)
    problems += _list_problems(plain, "choices", reply_spec.num_choices, at_most)
    choices = plain.get("choices")
    for number, choice in enumerate(choices if isinstance(choices, list) else (), start=1):
        wrong = choice.get("distractors") if isinstance(choice, dict) else None
        if not isinstance(wrong, list) or len(wrong) != NUM_DISTRACTORS or not all(map(_is_text, wrong)):
            problems.append(f"choices {number} has no {NUM_DISTRACTORS} distractors")
    return problems


def _is_text(value: object) -> bool:
    """Whether a value is text that can be written: not empty, and without half a surrogate pair."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= c <= "\udfff" for c in value)


def _list_problems(plain: Mapping[str, Any], name: str, count: int, at_most: bool) -> list[str]:
    items = plain.get(name)
    if not isinstance(items, list) or len(items) > count or (len(items) < count and not at_most):
        came = len(items) if isinstance(items, list) else "none"
        return [f"{name} holds {came}; expected {count}"]
    return [
        f"{name} {number} has no {key}"
        for number, item in enumerate(items, start=1)
        for key in ("question", "answer")
        if not isinstance(item, dict) or not _is_text(item.get(key))
    ]
