"""Write from labels alone, without a language model, or with one that rephrases each sentence."""

from __future__ import annotations

import asyncio
import random
import re
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Any, TypeVar

from mu_llama.labels.grounding import Labels, labels_of
from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import listed, terms
from mu_llama.musicqa.language import SentenceSlots, a, capital, words_of
from mu_llama.musicqa.reply import NUM_DISTRACTORS, Choice, Damaged, Pair, Reply, ReplySpec
from mu_llama.musicqa.writers.protocol import NothingToSay, Written

_MAX_ASKED = 2
_Thing = TypeVar("_Thing")
_Topic = tuple[tuple[tuple[str, str], ...], Mapping[str, str]]
_SLOT = re.compile(r"\{(\w+)\}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class TemplateWriter:
    """A `Writer` that fills sentences with labels.

    Args:
        reply_spec: how much is written.
        seed: with a track's id it chooses among wordings.

    Example:
        >>> track = Track("a", tags={"instrument": ("violin", "piano"), "genre": ("folk",), "mood": ("sad",)})
        >>> reply = TemplateWriter(ReplySpec(num_pairs=2)).compose(track)
        >>> len(reply.fixed), len(reply.pairs), len(reply.choices)
        (4, 2, 2)
    """

    name = "template"
    num_at_once = 1

    def __init__(self, reply_spec: ReplySpec, *, seed: int = 0) -> None:
        self._reply_spec, self._seed = reply_spec, seed

    async def write(self, track: Track, *, attempt: int) -> Written:
        """Compose; see `Writer`. Another attempt chooses other wordings."""
        return Written(self.compose(track, attempt=attempt).to_dict())

    def compose(self, track: Track, *, attempt: int = 0) -> Reply:
        """Compose the reply about a track.

        Raises:
            NothingToSay: if it has neither labels nor a caption.
        """
        rng = random.Random(f"{self._seed} {attempt} {track.id}".encode("utf-8", "surrogatepass"))
        labels = labels_of(track)
        words = words_of(track, labels, _wording()["uses"], rng)
        sentences = _Sentences(words, rng)
        return Reply(
            fixed=_fixed(track, words, sentences),
            pairs=_pairs(words, sentences, self._reply_spec.num_pairs),
            caption=track.caption or _caption(words, sentences),
            choices=_choices(words, labels, rng, self._reply_spec.num_choices),
        )


class _Sentences:
    """Picks wordings whose slots are known."""

    def __init__(self, words: SentenceSlots, rng: random.Random) -> None:
        self._slots, self._rng = words.slots, rng
        self._known = frozenset(words.slots)

    def one(self, kind: str) -> str | None:
        """A sentence of a kind, or None if none can be filled."""
        fitting = _fitting_sentences(kind, self._known)
        return capital(fitting[int(self._rng.random() * len(fitting))].format_map(self._slots)) if fitting else None

    def topic(self, name: str, **more: str) -> _Topic:
        """The wordings of a topic that can be filled, from a random one on, and what to fill them with."""
        slots = {**self._slots, **more} if more else self._slots
        wordings = _fitting_questions(name, self._known.union(more) if more else self._known)
        return tuple(self.rotated(wordings)), slots

    def rotated(self, things: Sequence[_Thing]) -> Sequence[_Thing]:
        """Rotate a sequence by a random offset, which is quicker than shuffling it."""
        first = int(self._rng.random() * len(things))
        return [*things[first:], *things[:first]]

    def text(self, *kinds: str) -> str:
        """One sentence of each kind that can be filled."""
        return " ".join(filter(None, map(self.one, kinds)))


def _fixed(track: Track, words: SentenceSlots, sentences: _Sentences) -> tuple[str, ...]:
    voice = {True: "voice", False: "no_voice", None: None}[words.has_voice]
    about_voice = (voice,) if voice else ()
    first = "voiced" if words.has_voice and "a_piece" in words.slots else "short"
    short = sentences.one(first) or sentences.one("short") or sentences.text("piece") or sentences.text("instruments")
    short = short or sentences.text(*about_voice) or sentences.text("mood", "pace") or sentences.text("tags")
    short = short or _first_sentence(track)
    if not short:
        raise NothingToSay("it has no labels and no caption to write from")
    detailed = sentences.text("piece", "instruments", *about_voice, "mood", "pace", "bpm", "key", "tags")
    sound = sentences.text("instruments", *about_voice, "pace") or sentences.text("piece", "mood", "tags")
    inferred = sentences.text("inferred", "style", "uses") or sentences.text("pace", "tags")
    return short, track.caption or detailed or short, sound or short, inferred or short


def _first_sentence(track: Track) -> str:
    return _SENTENCE_END.split(track.caption)[0] if track.caption else ""


def _caption(words: SentenceSlots, sentences: _Sentences) -> str:
    slots = words.slots
    sounds = [a(name) for name in words.instruments] + ([slots["voice"]] if "voice" in slots else [])
    parts = [slots.get("A_piece") or slots.get("Moods") or ""]
    if sounds:
        parts[0] = f"{parts[0]} with {listed(sounds)}" if parts[0] else capital(listed(sounds))
    if words.has_voice is False:
        parts.append("instrumental")
    if "pace" in slots:
        parts.append(f"{slots['bpm']} BPM" if "bpm" in slots else f"{slots['pace']} tempo")
    if "key" in slots:
        parts.append(slots["key"])
    return capital(", ".join(filter(None, parts))) + "." if any(parts) else sentences.text("tags")


def _pairs(words: SentenceSlots, sentences: _Sentences, count: int) -> tuple[Pair, ...]:
    """Pairs of topics that can be asked, from a random one on, one of each topic before the second of any."""
    topics = [sentences.topic(name) for name in ("instruments", "genre", "mood", "pace", "bpm", "key", "uses", "tags")]
    if words.has_voice is not None:
        topics.append(sentences.topic("voice" if words.has_voice else "no_voice"))
    topics += [sentences.topic("has_instrument", a_one=a(name)) for name in words.instruments[:_MAX_ASKED]]
    topics += [sentences.topic("lacks", missing=name, a_missing=a(name)) for name in words.absent[:_MAX_ASKED]]
    turned = sentences.rotated(topics)
    pairs: dict[str, Pair] = {}
    for number in range(max(len(wordings) for wordings, _ in topics)):
        for wordings, slots in turned:
            if len(pairs) == count:
                return tuple(pairs.values())
            if number < len(wordings):
                question, answer = wordings[number]
                filled = question.format_map(slots)
                pairs.setdefault(filled, Pair(filled, capital(answer.format_map(slots))))
    return tuple(pairs.values())


def _choices(words: SentenceSlots, labels: Labels, rng: random.Random, count: int) -> tuple[Choice, ...]:
    questions = _wording()["choices"]
    categories = [category for category in questions if words.names.get(category)]
    rng.shuffle(categories)
    choices = []
    for category in categories:
        right = words.names[category][0]
        distractors = _distractors(right, category, labels, rng)
        if len(distractors) == NUM_DISTRACTORS:
            choices.append(Choice(rng.choice(questions[category]), right, distractors))
        if len(choices) == count:
            break
    return tuple(choices)


@cache
def _category_names(category: str) -> tuple[str, ...]:
    return tuple(name for name, term in terms().items() if term.category == category)


def _distractors(right: str, category: str, labels: Labels, rng: random.Random) -> tuple[str, ...]:
    """Three terms of a category that no label supports; fewer if there aren't so many."""
    names = list(_category_names(category))
    wrong: list[str] = []
    while names and len(wrong) < NUM_DISTRACTORS:
        name = names.pop(int(rng.random() * len(names)))
        if _is_wrong(name, right, labels) and not any(_related(name, other) for other in wrong):
            wrong.append(name)
    return tuple(wrong)


def _related(one: str, other: str) -> bool:
    return one in terms()[other].broader or other in terms()[one].broader


def _is_wrong(name: str, right: str, labels: Labels) -> bool:
    """Whether no label supports a term: it is named by none, and broader or narrower than none."""
    term = terms()[name]
    return name not in labels.present and not term.broader & labels.named and not term.broader & terms()[right].broader


@cache
def _wording() -> dict[str, Any]:
    text = resources.files("mu_llama.musicqa.writers").joinpath("template.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@lru_cache(maxsize=4096)
def _fitting_sentences(kind: str, known: frozenset[str]) -> tuple[str, ...]:
    return tuple(text for text in _wording()["sentences"][kind] if _needs(text) <= known)


@lru_cache(maxsize=4096)
def _fitting_questions(topic: str, known: frozenset[str]) -> tuple[tuple[str, str], ...]:
    wordings = _wording()["questions"][topic]
    return tuple((question, answer) for question, answer in wordings if _needs(question) | _needs(answer) <= known)


def _needs(text: str) -> frozenset[str]:
    return frozenset(_SLOT.findall(text))


Chat = Callable[[list[dict[str, str]]], Awaitable[tuple[str, int, int]]]
"""Messages to a text, tokens read and tokens written."""

_SYSTEM = (
    "You say sentences about music in other words. Keep every fact, add none, and answer with the new sentence only."
)


async def write_in_pieces(chat: Chat, track: Track, reply_spec: ReplySpec, *, attempt: int, seed: int) -> Written:
    """Ask for the template writer's fixed answers, caption and pairs in other words, one by one.

    Questions and choices are the template writer's own, so the model never has to choose facts or a structure.

    Raises:
        NothingToSay: if the track has no labels.
        Damaged: if a text is empty.
    """
    template = TemplateWriter(reply_spec, seed=seed).compose(track, attempt=attempt)
    plain = [*template.fixed, template.caption, *(pair.answer for pair in template.pairs)]
    answers = await asyncio.gather(*(chat(_messages(text)) for text in plain))
    read, written = (sum(counts) for counts in zip(*((a[1], a[2]) for a in answers), strict=True))
    texts = [_tidy(text) for text, _, _ in answers]
    if not all(texts):
        raise Damaged("the model gave an empty text", prompt_tokens=read, completion_tokens=written)
    num_fixed = len(template.fixed)
    pairs = tuple(Pair(pair.question, text) for pair, text in zip(template.pairs, texts[num_fixed + 1 :], strict=True))
    reply = Reply(tuple(texts[:num_fixed]), pairs, texts[num_fixed], template.choices)
    return Written(reply.to_dict(), prompt_tokens=read, completion_tokens=written)


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": f"Say in other words: {text}"}]


def _tidy(text: str) -> str:
    """The first paragraph, without quotes around it and without a last sentence that was cut off."""
    first = " ".join(text.strip().split("\n\n")[0].split()).strip('"')
    end = max(first.rfind(mark) for mark in ".!?")
    return first[: end + 1] if end > 0 else first
