"""Score a model on the held-out clips, in generated text (greedy).

The features of the test split (works never trained on; rendered clips in a soundfont never trained on) and their labels
are in benchmarks/data, made by recipes/mini/test_set.py, so this needs no audio.
Run: python -m benchmarks.mini [--model FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import mu_llama
from benchmarks.measure import write_result
from benchmarks.mini.reading import contradictions, refuses
from benchmarks.mini.tasks import Ask, all_tasks
from mu_llama.answers import Answer, HeardTrack
from mu_llama.encoders.track import TrackFeatures
from mu_llama.generation import GenerationOptions
from mu_llama.listener import Listener
from mu_llama.measured import Measured
from mu_llama.musicqa.dialogues.knowledge import Knowledge
from mu_llama.prompts import Turn
from mu_llama.records import Track, read_lines
from mu_llama.writing import answer_batch, make_row

DATA = Path(__file__).parents[1] / "data"
SEED = 0
BATCH = 32
_KINDS = ("own_audio", "shuffled", "blind", "unseen_wording")
SHORT, LONG = GenerationOptions(max_new_tokens=32), GenerationOptions(max_new_tokens=120)


def answers(listener: Listener, asked: Sequence[tuple[HeardTrack, str]], options: GenerationOptions) -> list[str]:
    """Ask each question about its own track, like lengths together."""
    order = sorted(range(len(asked)), key=lambda place: len(asked[place][1]))
    texts = [""] * len(asked)
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        for place, answer in zip(places, _batch(listener, [asked[place] for place in places], options), strict=True):
            texts[place] = answer
    return texts


def _batch(listener: Listener, asked: Sequence[tuple[HeardTrack, str]], options: GenerationOptions) -> list[str]:
    rows = [make_row(listener.opened, track, [Turn(question)]) for track, question in asked]
    return [
        answer.text if isinstance(answer, Answer) else "" for answer in answer_batch(listener.opened, rows, options)
    ]


def balanced(asks: Sequence[Ask], right: Sequence[bool]) -> float:
    """Mean over the classes of the share of right answers, in percent."""
    hits, counts = Counter[str](), Counter[str]()
    for ask, correct in zip(asks, right, strict=True):
        hits[ask.truth] += correct
        counts[ask.truth] += 1
    return 100 * sum(hits[name] / counts[name] for name in counts) / len(counts)


def shuffled(asks: Sequence[Ask], rng: random.Random) -> list[int]:
    """For each question the track of another one."""
    order = list(range(len(asks)))
    rng.shuffle(order)
    following = {place: order[(at + 1) % len(order)] for at, place in enumerate(order)}
    return [asks[following[place]].row for place in range(len(asks))]


def score_task(
    listener: Listener, asks: Sequence[Ask], tracks: Sequence[HeardTrack], blind: HeardTrack
) -> dict[str, Any]:
    """Scores with the own audio, another's, an average one, in unseen wordings, and of rules that ask no model."""
    rng = random.Random(SEED)

    def right(rows: Sequence[HeardTrack], *, unseen: bool = False) -> tuple[float, list[str]]:
        questions = [ask.unseen if unseen else ask.question for ask in asks]
        texts = answers(listener, list(zip(rows, questions, strict=True)), SHORT)
        return balanced(asks, [ask.is_right(text) for ask, text in zip(asks, texts, strict=True)]), texts

    own, texts = right([tracks[ask.row] for ask in asks])
    other, _ = right([tracks[row] for row in shuffled(asks, rng)])
    none, _ = right([blind] * len(asks))
    unseen, _ = right([tracks[ask.row] for ask in asks], unseen=True)
    classes = Counter(ask.truth for ask in asks)
    tagged = [ask.tagger_is_right for ask in asks]
    result: dict[str, Any] = {
        "questions": len(asks), "classes": len(classes), "own_audio": own, "shuffled": other, "blind": none,
        "unseen_wording": unseen, "most_frequent": 100 / len(classes),
        "tagger": None if None in tagged else balanced(asks, [bool(ok) for ok in tagged]),
        "above_shuffled": own - other, "refused": 100 * sum(map(refuses, texts)) / len(texts),
    }  # fmt: skip
    hits = Counter(ask.truth for ask, text in zip(asks, texts, strict=True) if ask.is_right(text))
    examples = rng.sample(list(zip(asks, texts, strict=True)), min(6, len(asks)))
    return {
        **{name: round(value, 1) if isinstance(value, float) else value for name, value in result.items()},
        "by_class": {name: f"{hits[name]}/{count}" for name, count in sorted(classes.items())},
        "examples": [{"truth": ask.truth, "question": ask.question, "answer": text} for ask, text in examples],
    }


def score_facts(listener: Listener, tracks: Sequence[HeardTrack], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether an answer about tempo or key says what was measured."""
    asked, values = [], []
    for track, row in zip(tracks, rows, strict=True):
        measured = {name: Measured(text, confidence) for name, (text, confidence) in row["measured"].items()}
        if not measured:
            continue
        heard = replace(track, measure=lambda measured=measured: measured)
        for topic, question in (("tempo", "What is the tempo in BPM?"), ("key", "What key is this in?")):
            if topic in measured:
                asked.append((heard, question))
                values.append(measured[topic].text.removesuffix(" BPM"))
    texts = answers(listener, asked, SHORT)
    equal = [value in text for value, text in zip(values, texts, strict=True)]
    return {"questions": len(asked), "equal": round(100 * sum(equal) / max(1, len(equal)), 1), "examples": texts[:6]}


def score_descriptions(listener: Listener, tracks: Sequence[HeardTrack], known: Sequence[Knowledge]) -> dict[str, Any]:
    """How alike full descriptions are, and how many contradict labels."""
    texts = answers(listener, [(track, "Describe the audio in detail") for track in tracks], LONG)
    wrong = [contradictions(text, about) for text, about in zip(texts, known, strict=True)]
    checkable = [about.lists_all_instruments or about.has_voice is not None for about in known]
    bad = sum(bool(found) for found, can in zip(wrong, checkable, strict=True) if can)
    _, most = Counter(texts).most_common(1)[0]
    return {
        "descriptions": len(texts),
        "most_frequent": round(100 * most / len(texts), 1),
        "contradicted": round(100 * bad / max(1, sum(checkable)), 1),
        "contradicting": Counter(name for found in wrong for name in found).most_common(12),
        "examples": texts[:: max(1, len(texts) // 8)],
    }


def run(model: str, *, data: Path = DATA, quick: bool = False) -> dict[str, Any]:
    """Ask everything and score it; `quick` takes every fourth track."""
    rows = list(read_lines(data / "mini_test.jsonl"))
    features = load_file(data / "mini_test.safetensors")["features"].float()
    if quick:
        rows, features = rows[::4], features[::4]
    listener = mu_llama.load(model, use_cache=False)

    def recalled(values: torch.Tensor, name: str) -> HeardTrack:
        return listener.recall(TrackFeatures(values, heard=((0.0, 12.0),), duration_s=12.0), name=name)

    tracks = [recalled(values, row["id"]) for row, values in zip(rows, features, strict=True)]
    blind = recalled(features.mean(0), "average")
    labels = [Track.from_dict(row) for row in rows]
    result: dict[str, Any] = {"model": listener.name, "tracks": len(rows), "tasks": {}}
    for name, asks in all_tasks(labels).items():
        result["tasks"][name] = score = score_task(listener, asks, tracks, blind)
        values = " ".join(f"{kind} {score[kind]}" for kind in ("questions", *_KINDS, "tagger"))
        print(f"{name:26} {values}", flush=True)
    unanswerable = ("can't tell", "no music")
    answerable = [score for name, score in result["tasks"].items() if name not in unanswerable]
    asked = sum(score["questions"] for score in answerable)
    result["wrongly_refused"] = round(sum(score["refused"] * score["questions"] for score in answerable) / asked, 1)
    bands = [score for name, score in result["tasks"].items() if name.startswith("band: ")]
    result["bands"] = {
        kind: round(sum(score[kind] for score in bands) / max(1, len(bands)), 1) for kind in (*_KINDS, "above_shuffled")
    }
    result["facts"] = score_facts(listener, tracks, rows)
    music = [place for place, about in enumerate(labels) if Knowledge(about).is_music]
    known = [Knowledge(labels[place]) for place in music]
    result["descriptions"] = score_descriptions(listener, [tracks[place] for place in music], known)
    print(json.dumps({name: value for name, value in result.items() if name not in ("tasks", "descriptions")}))
    print(json.dumps({name: value for name, value in result["descriptions"].items() if name != "examples"}))
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with mini_test.jsonl and mini_test.safetensors")
    parser.add_argument("--quick", action="store_true", help="every fourth track, for a look during training")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/mini.json")
    arguments = parser.parse_args()
    write_result("mini", run(arguments.model, data=arguments.data, quick=arguments.quick), path=arguments.out)
