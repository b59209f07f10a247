"""Whether a reply may enter a data set: its shape, language, length, honesty. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mu_llama.labels.grounding import Labels, contradictions
from mu_llama.labels.vocabulary import find_mentions
from mu_llama.musicqa.language import language_of
from mu_llama.musicqa.reply import FIXED_KEYS, NUM_DISTRACTORS, Reply, ReplySpec
from mu_llama.musicqa.thinking import without_thinking
from mu_llama.musicqa.writers.protocol import Damaged

LEAST_WORDS, MOST_CHARACTERS = 2, 1500
_SHARED_WORDS = 9
_WORD = re.compile(r"\w+")
_KEYS = frozenset((*FIXED_KEYS, "pairs", "caption", "choices"))
_MOST_BEGINNINGS = 1000  # of objects that aren't whole: each costs a walk through the rest of the text
_WRAPPING = re.compile(r"\s*(?:```|~~~)?\s*(?:json)?[\s\[\]]*(?:```|~~~)?\s*", re.IGNORECASE)
_LEAKS = re.compile(
    r"\bas an ai\b|\blanguage model\b|\bjson\b|<\||\[/?inst\]|^#{2,}|```|\bsystem prompt\b|"
    r"\b(?:based on|according to|from|in) the (?:given |provided )?(?:tags?|labels?|metadata|captions?)\b|"
    r"\b(?:original|new) sentence\b|\bi(?:'m| am) (?:not sure|sorry|glad|happy)\b|\bi'll\b|"
    r"\b(?:tags?|labels?|metadata) (?:suggest|mention|say|indicate|name|include)s?\b|\bi do(?: not|n't) have access\b|"
    r"\b(?:provided|given) (?:tags?|labels?|metadata|captions?|information|text)\b|^(?:sure|certainly|of course)[,!]|"
    r"\b(?:genres?|instruments?|voice|mood|tempo|also|description): |\b(?:mentioned|listed) (?:above|here|are|is)\b|:$|"
    r"\b(?:song|track|piece|titled|called) [\"“]\w|^here (?:is|are) (?:the|a|your|some)\b|"
    r"\bi (?:cannot|can't) (?:listen|hear)\b",
    re.IGNORECASE | re.MULTILINE,
)


def parse_reply(text: str, wanted: ReplySpec | None = None, *, is_cut: bool = False) -> dict[str, Any]:
    """Find the JSON object in what a model wrote: the last whole one behind the reasoning that fits.

    It may be in a code fence, among other words, in an array, under a key of another object, or JSON as a string.

    Args:
        text: of the model.
        wanted: what must be in the object; None takes any.
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
            if wanted is not None and shape_problems(plain, wanted):
                partial = partial or (plain if _KEYS & plain.keys() else None)
            elif is_cut and not (_is_wrapping(answer[:start]) or _is_wrapping(answer[end:])):
                raise Damaged("it is cut off behind an object that may be a draft")
            else:
                return plain
    if partial is not None and not is_cut:
        return partial
    raise Damaged(f"its JSON is damaged or cut off ({problem})" if "{" in answer else "there is no JSON object in it")


def _plain_text(answer: str) -> str:
    """Undo JSON around the whole of an answer that makes a string of it."""
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
    while start >= 0 and len(problems) < _MOST_BEGINNINGS:
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


def shape_problems(plain: Mapping[str, Any], wanted: ReplySpec, *, at_most: bool = False) -> list[str]:
    """Say what is missing from a reply, too much, or of the wrong kind; `at_most` takes fewer pairs and choices."""
    problems = [f"{key} is missing or no text" for key in (*FIXED_KEYS, "caption") if not _is_text(plain.get(key))]
    problems += _list_problems(plain, "pairs", wanted.num_pairs, at_most)
    problems += _list_problems(plain, "choices", wanted.num_choices, at_most)
    choices = plain.get("choices")
    for number, choice in enumerate(choices if isinstance(choices, list) else (), start=1):
        wrong = choice.get("distractors") if isinstance(choice, dict) else None
        if not isinstance(wrong, list) or len(wrong) != NUM_DISTRACTORS or not all(map(_is_text, wrong)):
            problems.append(f"choices {number} has no {NUM_DISTRACTORS} distractors")
    return problems


def reply_problems(
    reply: Reply, labels: Labels, *, prompt: str = "", language: str | None = "en", strict: bool = False
) -> list[str]:
    """Say why a well-shaped reply may not be used; nothing if it may.

    Args:
        reply: to look at.
        labels: of its track.
        prompt: instructions whose words may not be repeated; empty where no language model was asked.
        language: ISO 639-1 code that the whole must be in; None for any.
        strict: refuse also what no label speaks of, see `grounding.contradictions`.
    """
    problems = list(_text_problems(reply, prompt))
    if language is not None:
        found = language_of(" ".join(text for _, text in reply.statements()))
        if found != language:
            problems.append(f"is in {found}; expected {language}")
    for where, text in reply.statements():
        problems += [f"{where} {problem}" for problem in contradictions(text, labels, strict=strict)]
    return problems + list(_choice_problems(reply, labels))


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


def _text_problems(reply: Reply, prompt: str) -> Iterator[str]:
    questions = [(f"question {number}", pair.question) for number, pair in enumerate(reply.pairs, start=1)]
    shared = _runs(prompt)
    for where, text in [*reply.statements(), *questions]:
        if len(text) > MOST_CHARACTERS:
            yield f"{where} is {len(text)} characters long; expected at most {MOST_CHARACTERS}"
        if prompt and (_LEAKS.search(text) or not shared.isdisjoint(_runs(text))):
            yield f"{where} speaks of its instructions: {text[:60]!r}"
    for where, text in [*list(reply.statements())[: len(FIXED_KEYS)], *questions]:
        if len(text.split()) < LEAST_WORDS:
            yield f"{where} has fewer than {LEAST_WORDS} words: {text!r}"
    asked = [pair.question.strip().casefold() for pair in reply.pairs]
    if len(set(asked)) < len(asked):
        yield "asks the same question twice"


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    """Every run of so many words that two texts share only when one was copied."""
    words = [word.lower() for word in _WORD.findall(text)]
    return frozenset(tuple(words[start : start + _SHARED_WORDS]) for start in range(len(words) - _SHARED_WORDS + 1))


def _choice_problems(reply: Reply, labels: Labels) -> Iterator[str]:
    for number, choice in enumerate(reply.choices, start=1):
        options = {option.strip().casefold() for option in (choice.answer, *choice.distractors)}
        if len(options) <= NUM_DISTRACTORS:
            yield f"choices {number} has the same option twice"
        for problem in contradictions(choice.answer, labels):
            yield f"choices {number} {problem}"
        for wrong in choice.distractors:
            true = [mention.term.name for mention in find_mentions(wrong) if mention.term.name in labels.named]
            if true:
                yield f"choices {number} takes {true[0]} for wrong, which the labels name"
