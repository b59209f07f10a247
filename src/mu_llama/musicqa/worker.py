"""One track from labels to a checked reply: what runs in the build, and on every machine of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mu_llama.labels.grounding import labels_of
from mu_llama.labels.track import Track
from mu_llama.musicqa.checks import reply_problems, shape_problems
from mu_llama.musicqa.reply import Reply, ReplySpec
from mu_llama.musicqa.writers.protocol import Damaged, NothingToSay, Unavailable, Writer


@dataclass(frozen=True)
class Rules:
    """What a reply must keep to."""

    wanted: ReplySpec = field(default_factory=ReplySpec)
    """How much is written."""
    language: str | None = "en"
    """ISO 639-1 code; None takes any."""
    strict: bool = False
    """Refuse also what no label speaks of."""
    num_attempts: int = 4
    """How many replies are asked for before a track is rejected; and each so often, where it can't be read."""
    prompt: str = ""
    """Instructions whose words may not be repeated."""
    at_most: bool = False
    """Fewer pairs and choices than wanted are fine: labels can be too few for more."""


@dataclass(frozen=True)
class Outcome:
    """What became of a track: a reply, or reasons against it, or a failure to be tried again."""

    id: str
    """Of the track."""
    reply: Mapping[str, Any] | None = None
    """Checked; None if it was rejected or failed."""
    reasons: tuple[str, ...] = ()
    """Why the last reply was rejected."""
    failed: str | None = None
    """Why nothing came; the track stays to be written."""
    num_attempts: int = 1
    """Replies that were looked at."""
    num_damaged: int = 0
    """Replies that couldn't be read."""
    prompt_tokens: int = 0
    """Of all attempts."""
    completion_tokens: int = 0
    """Of all attempts."""

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
            reasons = check(written.reply, track, rules, labels=labels)
            if not reasons:
                counts = (attempt + 1, num_damaged, prompt_tokens, completion_tokens)
                return Outcome(track.id, written.reply, (), None, *counts)
            break
    counts = (rules.num_attempts, num_damaged, prompt_tokens, completion_tokens)
    return Outcome(track.id, None, tuple(reasons), None, *counts)


def check(reply: Mapping[str, Any], track: Track, rules: Rules, *, labels: Any = None) -> list[str]:
    """Say why a reply may not be used; nothing if it may."""
    problems = shape_problems(reply, rules.wanted, at_most=rules.at_most)
    if problems:
        return problems
    return reply_problems(
        Reply.from_dict(reply),
        labels or labels_of(track),
        prompt=rules.prompt,
        language=rules.language,
        strict=rules.strict,
    )
