"""Scores of one kind of question, out of generated text."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.mini.reading import contradictions, refuses
from benchmarks.mini.tasks import Ask
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.inference.answering import answer_rows, make_row
from mu_llama.inference.listener import Listener
from mu_llama.inference.results import Answer, EncodedTrack
from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues.track_labels import TrackLabels
from mu_llama.text.fact_prompts import MeasuredFact
from mu_llama.text.prompts import Turn

SEED = 0
BATCH = 16
SHORT, LONG = GenerationOptions(max_new_tokens=32), GenerationOptions(max_new_tokens=120)


def answers(listener: Listener, asked: Sequence[tuple[EncodedTrack, str]], options: GenerationOptions) -> list[str]:
    """Ask each question about its own track."""
    rows = (make_row(listener.opened, track, [Turn(question)]) for track, question in asked)
    results = answer_rows(listener.opened, rows, options, batch_size=BATCH)
    return [result.text if isinstance(result, Answer) else "" for result in results]


def balanced(asks: Sequence[Ask], right: Sequence[bool]) -> float:
    """Mean over the classes of the share of right answers, in percent."""
    hits, counts = Counter[str](), Counter[str]()
    for ask, correct in zip(asks, right, strict=True):
        hits[ask.truth] += correct
        counts[ask.truth] += 1
    return 100 * sum(hits[name] / counts[name] for name in counts) / len(counts)


def shuffled(asks: Sequence[Ask], labels: Sequence[Track], rng: random.Random) -> list[int]:
    """For each question the track of another one, by another maker."""
    rows = [ask.row for ask in asks]

    def another(row: int) -> int:
        for _ in range(50):
            other = rng.choice(rows)
            if other != row and labels[other].group != labels[row].group:
                return other
        return rng.choice(rows)

    return [another(row) for row in rows]


def tagger_score(asks: Sequence[Ask]) -> float | None:
    """Balanced accuracy of the tagger alone: of its likeliest tag, or at the threshold that serves it best here."""
    said = [ask.tagger for ask in asks]
    if any(value is None for value in said):
        return None
    if all(isinstance(value, bool) for value in said):
        return balanced(asks, [bool(value) for value in said])
    values = [float(value) for value in said if value is not None]
    scores = [
        balanced(asks, [(value >= threshold) == (ask.truth == "yes") for ask, value in zip(asks, values, strict=True)])
        for threshold in sorted(set(values))
    ]
    return max(scores)


def best_constant(asks: Sequence[Ask], texts: Sequence[str]) -> float:
    """The best that one of the model's answers would score, if it were given always."""
    common = [text for text, _ in Counter(texts).most_common(60)]
    return max(balanced(asks, [ask.is_right(text) for ask in asks]) for text in common)


def score_task(
    listener: Listener,
    asks: Sequence[Ask],
    tracks: Sequence[EncodedTrack],
    labels: Sequence[Track],
    blind: EncodedTrack,
    shuffles: int = 1,
) -> dict[str, Any]:
    """Scores with the own audio, another's and an average one, in unseen wordings, and of rules that ask no model.

    Args:
        listener: the model.
        asks: questions of one kind.
        tracks: all that can be asked about.
        labels: theirs.
        blind: the average of all.
        shuffles: how often other audio is drawn; its score is their mean.
    """
    rng = random.Random(SEED)

    def right(rows: Sequence[EncodedTrack], *, unseen: bool = False) -> tuple[float, list[str]]:
        questions = [ask.unseen if unseen else ask.question for ask in asks]
        texts = answers(listener, list(zip(rows, questions, strict=True)), SHORT)
        return balanced(asks, [ask.is_right(text) for ask, text in zip(asks, texts, strict=True)]), texts

    own_audio, texts = right([tracks[ask.row] for ask in asks])
    others = [right([tracks[row] for row in shuffled(asks, labels, rng)])[0] for _ in range(shuffles)]
    other = sum(others) / len(others)
    none, _ = right([blind] * len(asks))
    unseen, _ = right([tracks[ask.row] for ask in asks], unseen=True)
    classes = Counter(ask.truth for ask in asks)
    result: dict[str, Any] = {
        "questions": len(asks), "classes": len(classes), "own_audio": own_audio, "shuffled": other, "blind": none,
        "unseen_wording": unseen, "most_frequent": best_constant(asks, texts), "tagger": tagger_score(asks),
        "above_shuffled": own_audio - other, "refused": 100 * sum(map(refuses, texts)) / len(texts),
    }  # fmt: skip
    hits = Counter(ask.truth for ask, text in zip(asks, texts, strict=True) if ask.is_right(text))
    examples = rng.sample(list(zip(asks, texts, strict=True)), min(6, len(asks)))
    return {
        **{name: round(value, 1) if isinstance(value, float) else value for name, value in result.items()},
        "by_class": {name: f"{hits[name]}/{count}" for name, count in sorted(classes.items())},
        "examples": [{"truth": ask.truth, "question": ask.question, "answer": text} for ask, text in examples],
    }


def score_facts(
    listener: Listener, tracks: Sequence[EncodedTrack], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Whether an answer about tempo or key says what was measured, as surely, and refuses where nothing was."""
    asked, facts = [], []
    for track, row in zip(tracks, rows, strict=True):
        measured = {name: MeasuredFact(text, confidence) for name, (text, confidence) in row["measured"].items()}
        with_facts = replace(track, measure=lambda measured=measured: measured)
        for topic, question in (("tempo", "What is the tempo in BPM?"), ("key", "What key is this in?")):
            if topic in measured:
                asked.append((with_facts, question))
                facts.append(measured[topic])
    if not asked:
        return {"questions": 0}
    texts = answers(listener, asked, SHORT)
    unmeasured = answers(listener, [(replace(track, measure=dict), question) for track, question in asked], SHORT)
    equal = [says_value(text, fact.text) for fact, text in zip(facts, texts, strict=True)]
    hedged = [bool(_HEDGE.search(text)) != fact.is_sure for fact, text in zip(facts, texts, strict=True)]
    return {
        "questions": len(asked),
        "equal": round(100 * sum(equal) / len(equal), 1),
        "hedged_as_measured": round(100 * sum(hedged) / len(hedged), 1),
        "refused_unmeasured": round(100 * sum(map(refuses, unmeasured)) / len(unmeasured), 1),
        "examples": texts[:6],
    }


_HEDGE = re.compile(r"probably|perhaps", re.IGNORECASE)


def says_value(text: str, value: str) -> bool:
    """Whether a text holds a measured value and not merely its digits inside others.

    Example:
        >>> says_value("About 160 BPM.", "60 BPM"), says_value("About 60 beats per minute.", "60 BPM")
        (False, True)
    """
    return bool(re.search(rf"(?<![\d.]){re.escape(value.removesuffix(' BPM'))}(?![\d])", text))


def score_descriptions(
    listener: Listener, tracks: Sequence[EncodedTrack], known: Sequence[TrackLabels]
) -> dict[str, Any]:
    """How alike full descriptions are, and how many contradict labels."""
    texts = answers(listener, [(track, "Describe the audio in detail") for track in tracks], LONG)
    wrong = [contradictions(text, about) for text, about in zip(texts, known, strict=True)]
    checkable = [about.lists_all_instruments or about.has_voice is not None for about in known]
    bad = sum(bool(claims) for claims, can in zip(wrong, checkable, strict=True) if can)
    _, max_count = Counter(texts).most_common(1)[0]
    return {
        "descriptions": len(texts),
        "most_frequent": round(100 * max_count / len(texts), 1),
        "contradicted": round(100 * bad / max(1, sum(checkable)), 1),
        "contradicting": Counter(name for claims in wrong for name in claims).most_common(12),
        "examples": texts[:: max(1, len(texts) // 8)],
    }


def read_features(data: Path) -> torch.Tensor:
    """Features (N, L, D) of the held-out clips, which recipes/mini/test_set.py wrote in a byte a number."""
    stored = load_file(data / "mini_test.safetensors")
    return stored["codes"].float() * stored["scale"] + stored["lowest"]
