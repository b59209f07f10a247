"""Score `mini` on held-out clips: what it says of the right audio, and of another clip's.

The features of the test split (works never trained on; rendered clips in a soundfont never trained on) are in
benchmarks/data, made by recipes/mini/test_set.py, so this needs no audio.

Run: python benchmarks/mini.py [--model FOLDER]
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
from mu_llama.answers import Answer, HeardTrack
from mu_llama.encoders.track import TrackFeatures
from mu_llama.generation import GenerationOptions
from mu_llama.listener import Listener

DATA = Path(__file__).parent / "data"
RESULT = Path(__file__).parent / "results" / "mini.json"
SEED = 0
# Asked in the trained wording; a question for each row is drawn from these.
SOLO_QUESTIONS = ("What instrument is playing?", "What instruments do you hear?", "Which instrument leads?")
DRUM_QUESTIONS = ("Are there drums?", "Do you hear drums?")


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


def score_solo(rows: Sequence[dict[str, Any]], texts: Sequence[str], names: Sequence[str]) -> list[bool]:
    """Right if the answer names the soloist and no other instrument."""
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
    names = sorted({name for row in rows for name in row["labels"]["instruments"] or ()})
    solo = [i for i, row in enumerate(rows) if row["group"] == "C" and row["labels"]["lead"] and row["labels"]["solo"]]
    drums = [i for i, row in enumerate(rows) if row["group"] == "A" and row["labels"]["drums"] is not None]
    result: dict[str, Any] = {"model": listener.name, "command": f"python benchmarks/mini.py --model {model}"}
    for task, chosen, questions in (
        ("solo_instrument", solo, SOLO_QUESTIONS),
        ("drums", drums, DRUM_QUESTIONS),
    ):
        rng = random.Random(SEED)
        asked = [rng.choice(questions) for _ in chosen]
        own = [tracks[i] for i in chosen]
        part = [rows[i] for i in chosen]
        result[task] = {
            "clips": len(chosen),
            "classes": len({str(row["labels"][LABEL[task]]) for row in part}),
        }
        for condition, heard in (("own_audio", own), ("shuffled_audio", shuffled(own, rng))):
            texts = ask_each(listener, heard, asked)
            right = score_solo(part, texts, names) if task == "solo_instrument" else score_drums(part, texts)
            result[task][condition] = round(100 * balanced_accuracy(part, right, LABEL[task]), 1)
            if condition == "own_audio":
                result[task]["by_class"] = by_class(part, right, LABEL[task])
                result[task]["examples"] = [
                    {"truth": row["labels"][LABEL[task]], "question": question, "answer": text}
                    for row, question, text in list(zip(part, asked, texts, strict=True))[:: max(1, len(part) // 8)]
                ]
        result[task]["points_above_shuffled"] = round(result[task]["own_audio"] - result[task]["shuffled_audio"], 1)
    return result


LABEL = {"solo_instrument": "lead", "drums": "drums"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    scores = run(arguments.model)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))
