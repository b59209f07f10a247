"""Score `mini` on held-out clips: what it says of the right audio, and of another clip's.

The features of the test split (works never trained on; rendered clips in a soundfont never trained on) are in
benchmarks/data, made by recipes/mini/test_set.py, so this needs no audio.

Run: python -m benchmarks.mini [--model FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import mu_llama
from benchmarks.measure import write_result
from mu_llama.answers import Answer, HeardTrack
from mu_llama.encoders.track import TrackFeatures
from mu_llama.generation import GenerationOptions
from mu_llama.listener import Listener

DATA = Path(__file__).parent / "data"
SEED = 0
# Asked in the trained wording; a question for each row is drawn from these.
SOLO_QUESTIONS = ("What instrument is playing?", "What instruments do you hear?", "Which instrument leads?")
DRUM_QUESTIONS = ("Are there drums?", "Do you hear drums?")
# Names that an answer must not hold beside the right one, besides all soloists.
INSTRUMENTS = {
    "guitar", "strings", "drums", "synthesizer", "electric organ", "electric piano", "electric bass", "double bass",
    "distorted electric guitar", "choir", "viola", "brass section", "French horn", "tuba",
}  # fmt: skip
TASKS = {"solo_instrument": ("lead", SOLO_QUESTIONS), "drums": ("drums", DRUM_QUESTIONS)}
"""Task to the label it is scored by and its questions."""
NUM_SHUFFLES = 3


def named(text: str, names: Sequence[str]) -> set[str]:
    """Which of the names a text holds; a longer name hides a shorter one inside it.

    Example:
        >>> sorted(named("An electric guitar and a harp.", ["guitar", "electric guitar", "harp"]))
        ['electric guitar', 'harp']
    """
    found = set()
    for name in sorted(names, key=len, reverse=True):
        pattern = re.compile(rf"\b{re.escape(name)}s?\b", re.IGNORECASE)
        if pattern.search(text):
            found.add(name)
            text = pattern.sub("#", text)
    return found


def yes_or_no(text: str) -> bool | None:
    """Read a yes/no answer; None if it is neither."""
    match = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return None if match is None else match[1].lower() == "yes"


def shuffled(tracks: Sequence[HeardTrack], rng: random.Random) -> list[HeardTrack]:
    """Give every row another row's audio."""
    order = list(range(len(tracks)))
    rng.shuffle(order)
    following = {row: order[(place + 1) % len(order)] for place, row in enumerate(order)}
    return [tracks[following[row]] for row in range(len(tracks))]


def ask_each(listener: Listener, tracks: Sequence[HeardTrack], questions: Sequence[str]) -> list[str]:
    """Ask row i its own question about its own track, batched by question."""
    texts = [""] * len(tracks)
    for question in dict.fromkeys(questions):
        rows = [row for row, asked in enumerate(questions) if asked == question]
        options = GenerationOptions(max_new_tokens=40)
        answers = listener.ask_many([tracks[row] for row in rows], [question], options=options, batch_size=32)
        for row, answer in zip(rows, answers, strict=True):
            assert isinstance(answer, Answer)
            texts[row] = answer.text
    return texts


def score_solo(rows: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[bool]:
    """Right if the answer names the soloist and no other instrument."""
    names = sorted(INSTRUMENTS | {str(row["labels"]["lead"]) for row in rows})
    return [named(text, names) == {row["labels"]["lead"]} for row, text in zip(rows, texts, strict=True)]


def score_drums(rows: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[bool]:
    """Right if yes or no agrees with the label."""
    return [yes_or_no(text) == row["labels"]["drums"] for row, text in zip(rows, texts, strict=True)]


def by_class(rows: Sequence[dict[str, Any]], right: Sequence[bool], label: str) -> dict[str, str]:
    """Hits of each class, as `hits/clips`."""
    hits, counts = Counter[str](), Counter[str]()
    for row, correct in zip(rows, right, strict=True):
        hits[str(row["labels"][label])] += correct
        counts[str(row["labels"][label])] += 1
    return {name: f"{hits[name]}/{counts[name]}" for name in sorted(counts)}


def balanced_accuracy(rows: Sequence[dict[str, Any]], right: Sequence[bool], label: str) -> float:
    """Mean over the classes of the share of right answers."""
    shares = [tuple(map(int, entry.split("/"))) for entry in by_class(rows, right, label).values()]
    return sum(hits / count for hits, count in shares) / len(shares)


def run(model: str) -> dict[str, Any]:
    """Ask about the right and the shuffled audio and score both."""
    rows = [json.loads(line) for line in (DATA / "mini_test.jsonl").read_text().splitlines()]
    features = load_file(DATA / "mini_test.safetensors")["features"].float()
    listener = mu_llama.load(model, use_cache=False)
    tracks = [
        listener.recall(TrackFeatures(values, heard=((0.0, 12.0),), duration_s=12.0), name=row["id"])
        for row, values in zip(rows, features, strict=True)
    ]
    result: dict[str, Any] = {"model": listener.name, "shuffles": NUM_SHUFFLES}
    for task, asked_of in (("solo_instrument", _is_solo), ("drums", _is_band)):
        chosen = [index for index, row in enumerate(rows) if asked_of(row)]
        result[task] = score_task(listener, task, [rows[i] for i in chosen], [tracks[i] for i in chosen])
    return result


def _is_solo(row: dict[str, Any]) -> bool:
    return bool(row["group"] == "C" and row["labels"]["lead"] and row["labels"]["solo"])


def _is_band(row: dict[str, Any]) -> bool:
    return bool(row["group"] == "A" and row["labels"]["drums"] is not None)


def score_task(
    listener: Listener, task: str, rows: Sequence[dict[str, Any]], tracks: Sequence[HeardTrack]
) -> dict[str, Any]:
    """Balanced accuracy in percent with each row's own audio, and the mean over several shuffles of the audio."""
    label, questions = TASKS[task]
    rng = random.Random(SEED)
    asked = [rng.choice(questions) for _ in rows]

    def right(heard: Sequence[HeardTrack]) -> tuple[list[bool], list[str]]:
        texts = ask_each(listener, heard, asked)
        return (score_solo(rows, texts) if task == "solo_instrument" else score_drums(rows, texts)), texts

    own, texts = right(tracks)
    own_score = 100 * balanced_accuracy(rows, own, label)
    others = [100 * balanced_accuracy(rows, right(shuffled(tracks, rng))[0], label) for _ in range(NUM_SHUFFLES)]
    shuffled_score = sum(others) / len(others)
    truths = [row["labels"][label] for row in rows]
    examples = list(zip(truths, asked, texts, strict=True))[:: max(1, len(rows) // 8)]
    return {
        "clips": len(rows),
        "classes": len(set(map(str, truths))),
        "own_audio": round(own_score, 1),
        "shuffled_audio": round(shuffled_score, 1),
        "points_above_shuffled": round(own_score - shuffled_score, 1),
        "each_shuffle": [round(score, 1) for score in others],
        "by_class": by_class(rows, own, label),
        "examples": [{"truth": truth, "question": question, "answer": text} for truth, question, text in examples],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/mini.json")
    arguments = parser.parse_args()
    write_result("mini", run(arguments.model), path=arguments.out)
