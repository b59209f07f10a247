"""One track from labels to a checked reply: what runs in the build, and on every machine of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mu_llama.labels.grounding import Labels, contradictions, labels_of
from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import find_mentions
from mu_llama.musicqa.language import language_of
from mu_llama.musicqa.reply import FIXED_KEYS, NUM_DISTRACTORS, Damaged, Reply, ReplySpec, shape_problems
from mu_llama.musicqa.writers.protocol import NothingToSay, Unavailable, Writer


@dataclass(frozen=True)
class Rules:
    """Checks that a reply must pass."""

    reply_spec: ReplySpec = field(default_factory=ReplySpec)
    """How much is written."""
    language: str | None = "en"
    """ISO 639-1 code; None takes any."""
    strict: bool = False
    """Refuse also claims in categories without labels."""
    num_attempts: int = 4
    """Replies that are asked for before a track is rejected, and tries for each that can't be read."""
    prompt: str = ""
    """Instructions whose words may not be repeated."""
    at_most: bool = False
    """Fewer pairs and choices than wanted are fine: labels can be too few for more."""


@dataclass(frozen=True)
class Outcome:
    """Result for a track: a reply, reasons of its rejection, or a failure to try again."""

    id: str
    """Of the track."""
    reply: Mapping[str, Any] | None = None
    """Checked; None if it was rejected or failed."""
    reasons: tuple[str, ...] = ()
    """Why the last reply was rejected."""
    failed: str | None = None
    """Why nothing came; the track stays to be written."""
    num_attempts: int = 1
    """Replies that were checked."""
    num_damaged: int = 0
    """Replies that couldn't be read."""
    prompt_tokens: int = 0
    """Tokens read in all attempts."""
    completion_tokens: int = 0
    """Tokens written in all attempts."""

    @property
    def is_unreadable(self) -> bool:
        """Whether no reply could be read at all."""
        return self.reply is None and self.failed is None and 0 < self.num_attempts <= self.num_damaged

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


async def write_track(writer: Writer, track: Track, rules: Rules) -> Outcome:
    """Write about a track until a reply passes all checks, or no attempt is left.

    A reply that can't be read is asked for again with the same attempt number, so that a bad connection doesn't
    change what is written; one that was read and rejected, with the next.

    Raises:
        Refused: if the writer will not work at all.
    """
    labels = labels_of(track)
    reasons: list[str] = []
    num_damaged = prompt_tokens = completion_tokens = 0
    for attempt in range(rules.num_attempts):
        reasons = []
        for _ in range(rules.num_attempts):
            try:
                written = await writer.write(track, attempt=attempt)
            except NothingToSay as error:
                return Outcome(track.id, reasons=(str(error),), num_attempts=0)
            except Unavailable as error:
                return Outcome(track.id, failed=str(error), num_attempts=attempt, num_damaged=num_damaged)
            except Damaged as error:
                num_damaged += 1
                prompt_tokens += error.prompt_tokens
                completion_tokens += error.completion_tokens
                reasons = [str(error)]
                continue
            prompt_tokens += written.prompt_tokens
            completion_tokens += written.completion_tokens
            reasons = _problems(written.reply, track, rules, labels=labels)
            if not reasons:
                counts = (attempt + 1, num_damaged, prompt_tokens, completion_tokens)
                return Outcome(track.id, written.reply, (), None, *counts)
            break
    counts = (rules.num_attempts, num_damaged, prompt_tokens, completion_tokens)
    return Outcome(track.id, None, tuple(reasons), None, *counts)


def _problems(reply: Mapping[str, Any], track: Track, rules: Rules, *, labels: Any = None) -> list[str]:
    """Say why a reply may not be used; nothing if it may."""
    problems = shape_problems(reply, rules.reply_spec, at_most=rules.at_most)
    if problems:
        return problems
    return reply_problems(
        Reply.from_dict(reply),
        labels or labels_of(track),
        prompt=rules.prompt,
        language=rules.language,
        strict=rules.strict,
    )


MIN_WORDS, MAX_CHARACTERS = 2, 1500
_SHARED_WORDS = 9
_WORD = re.compile(r"\w+")
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


def reply_problems(
    reply: Reply, labels: Labels, *, prompt: str = "", language: str | None = "en", strict: bool = False
) -> list[str]:
    """Say why a well-shaped reply may not be used; nothing if it may.

    Args:
        reply: to look at.
        labels: of its track.
        prompt: instructions whose words may not be repeated; empty where no language model was asked.
        language: ISO 639-1 code that the whole must be in; None for any.
        strict: refuse also claims in categories without labels, see `grounding.contradictions`.
    """
    problems = list(_text_problems(reply, prompt))
    if language is not None:
        detected = language_of(" ".join(text for _, text in reply.statements()))
        if detected != language:
            problems.append(f"is in {detected}; expected {language}")
    for where, text in reply.statements():
        problems += [f"{where} {problem}" for problem in contradictions(text, labels, strict=strict)]
    return problems + list(_choice_problems(reply, labels))


def _text_problems(reply: Reply, prompt: str) -> Iterator[str]:
    questions = [(f"question {number}", pair.question) for number, pair in enumerate(reply.pairs, start=1)]
    shared = _runs(prompt)
    for where, text in [*reply.statements(), *questions]:
        if len(text) > MAX_CHARACTERS:
            yield f"{where} is {len(text)} characters long; expected at most {MAX_CHARACTERS}"
        if prompt and (_LEAKS.search(text) or not shared.isdisjoint(_runs(text))):
            yield f"{where} speaks of its instructions: {text[:60]!r}"
    for where, text in [*list(reply.statements())[: len(FIXED_KEYS)], *questions]:
        if len(text.split()) < MIN_WORDS:
            yield f"{where} has fewer than {MIN_WORDS} words: {text!r}"
    asked = [pair.question.strip().casefold() for pair in reply.pairs]
    if len(set(asked)) < len(asked):
        yield "asks the same question twice"


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    """Give every run of nine words, which two texts share only when one was copied."""
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
