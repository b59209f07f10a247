"""For small models: the template writer's sentences, each said in other words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import Pair, Reply, ReplySpec
from mu_llama.musicqa.writers.protocol import Damaged, Written
from mu_llama.musicqa.writers.template import TemplateWriter

Chat = Callable[[list[dict[str, str]]], Awaitable[tuple[str, int, int]]]
"""Messages to a text, tokens read and tokens written."""

_SYSTEM = (
    "You say sentences about music in other words. Keep every fact, add none, and answer with the new sentence only."
)


async def write_in_pieces(chat: Chat, track: Track, wanted: ReplySpec, *, attempt: int, seed: int) -> Written:
    """Ask for the template writer's fixed answers, caption and pairs in other words, one by one.

    Questions and choices are the template writer's own, so the model never has to choose facts or a structure.

    Raises:
        NothingToSay: if the track has no labels.
        Damaged: if a text is empty.
    """
    own = TemplateWriter(wanted, seed=seed).compose(track, attempt=attempt)
    plain = [*own.fixed, own.caption, *(pair.answer for pair in own.pairs)]
    answers = await asyncio.gather(*(chat(_messages(text)) for text in plain))
    read, written = (sum(counts) for counts in zip(*((a[1], a[2]) for a in answers), strict=True))
    texts = [_tidy(text) for text, _, _ in answers]
    if not all(texts):
        raise Damaged("the model gave an empty text", prompt_tokens=read, completion_tokens=written)
    num_fixed = len(own.fixed)
    pairs = tuple(Pair(pair.question, text) for pair, text in zip(own.pairs, texts[num_fixed + 1 :], strict=True))
    reply = Reply(tuple(texts[:num_fixed]), pairs, texts[num_fixed], own.choices)
    return Written(reply.to_dict(), prompt_tokens=read, completion_tokens=written)


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": f"Say in other words: {text}"}]


def _tidy(text: str) -> str:
    """The first paragraph, without quotes around it and without a last sentence that was cut off."""
    first = " ".join(text.strip().split("\n\n")[0].split()).strip('"')
    end = max(first.rfind(mark) for mark in ".!?")
    return first[: end + 1] if end > 0 else first
