"""For small models: each text is asked for alone, in plain words, and put together here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mu_llama.musicqa.prompting import facts_of
from mu_llama.musicqa.reply import FIXED_KEYS, Pair, Reply, Wanted
from mu_llama.musicqa.writers.protocol import Damaged, Written
from mu_llama.musicqa.writers.template import TemplateWriter
from mu_llama.records import Track

Chat = Callable[[list[dict[str, str]]], Awaitable[tuple[str, int, int]]]
"""Messages to a text, tokens read and tokens written."""

_SYSTEM = (
    "You describe music for people who can't hear it. Answer in one or two plain English sentences. Say only what "
    "follows from the facts, and name no other instrument, genre or voice."
)
_ASKED = {
    FIXED_KEYS[0]: "What kind of recording is this? One sentence.",
    FIXED_KEYS[1]: "Describe the recording in three short sentences.",
    FIXED_KEYS[2]: "Which sounds can be heard in it?",
    FIXED_KEYS[3]: "How does it feel, and what could it be used for?",
    "caption": "Write one sentence from which similar music could be made.",
}


async def write_in_pieces(chat: Chat, track: Track, wanted: Wanted, *, attempt: int, seed: int) -> Written:
    """Ask for the fixed answers, the caption and answers to open questions one by one.

    Open questions and choices are those of the template writer, so only answers come from the model.

    Raises:
        NothingToSay: if the track has no labels.
        Damaged: if a text is empty.
    """
    own = TemplateWriter(wanted, seed=seed).compose(track, attempt=attempt)
    questions = [*_ASKED.values(), *(pair.question for pair in own.pairs)]
    answers = await asyncio.gather(*(chat(_messages(track, question)) for question in questions))
    read, written = (sum(counts) for counts in zip(*((a[1], a[2]) for a in answers), strict=True))
    texts = [_tidy(text) for text, _, _ in answers]
    if not all(texts):
        raise Damaged("the model gave an empty text", prompt_tokens=read, completion_tokens=written)
    num_fixed = len(FIXED_KEYS)
    pairs = tuple(Pair(pair.question, text) for pair, text in zip(own.pairs, texts[num_fixed + 1 :], strict=True))
    reply = Reply(tuple(texts[:num_fixed]), pairs, texts[num_fixed], own.choices)
    return Written(reply.to_dict(), prompt_tokens=read, completion_tokens=written)


def _messages(track: Track, question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": f"{facts_of(track)}\n\n{question}"}]


def _tidy(text: str) -> str:
    """The first paragraph, without quotes around it and without a last sentence that was cut off."""
    first = " ".join(text.strip().split("\n\n")[0].split()).strip('"')
    end = max(first.rfind(mark) for mark in ".!?")
    return first[: end + 1] if end > 0 else first
