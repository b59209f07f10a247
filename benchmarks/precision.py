"""How near the onnx engine in fp32, int8 and int4 stays to torch in fp32 and bf16, with `mini`.

Cosines of the logits on questions about the example clips, each with the answer that torch gives in fp32; and of 200
questions about held-out tracks the share whose greedy answer has the same tokens: alone and among 16 rows that begin
and end independently, and by one engine and another.

Run: python -m benchmarks.precision
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mu_llama
from benchmarks.measure import ROOT, write_result
from benchmarks.mini.scoring import read_features
from benchmarks.mini.tasks import all_tasks
from mu_llama.encoders.pooling import TrackFeatures
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.engine.torch.engine import TorchEngine
from mu_llama.files import read_lines
from mu_llama.inference.answering import QuestionRow, make_row
from mu_llama.inference.listener import Listener
from mu_llama.labels.track import Track
from mu_llama.text.prompts import Turn

CLIPS = ROOT / "examples" / "audio"
DATA = ROOT / "benchmarks" / "data"
QUESTIONS = ("Describe the audio in detail", "What instruments do you hear?", "Is there singing?", "What is the mood?")
ENGINES: Mapping[str, Mapping[str, str]] = {
    "torch fp32": {"engine": "torch", "dtype": "fp32"},
    "torch bf16": {"engine": "torch"},
    "onnx fp32": {"engine": "onnx", "dtype": "fp32"},
    "onnx int8": {"engine": "onnx", "quantize": "int8"},
    "onnx int4": {"engine": "onnx", "quantize": "int4"},
}
"""Arguments of `mu_llama.load`."""
REFERENCES = ("torch fp32", "torch bf16")
OPTIONS = GenerationOptions(max_new_tokens=32)
Logits = list[NDArray[np.float32]]
Answers = list[list[int]]


def cosines(values: Logits, expected: Logits) -> dict[str, float]:
    """Cosines of logits (T, V) of some prompts with others: the lowest of a whole prompt and of a last token, the mean
    of all positions.
    """
    pairs = list(zip(values, expected, strict=True))
    return {
        "all_logits": round(min(float(_cosine(one.ravel(), two.ravel())) for one, two in pairs), 5),
        "last_token": round(min(float(_cosine(one[-1], two[-1])) for one, two in pairs), 5),
        "mean_position": round(statistics.mean(float(np.mean(_cosine(one, two))) for one, two in pairs), 5),
    }


def _cosine(one: NDArray[np.float32], two: NDArray[np.float32]) -> Any:
    return (one * two).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1))


def logits(listener: Listener, row: QuestionRow, answer: Sequence[int]) -> NDArray[np.float32]:
    """Logits (T, V) of a prompt and its answer."""
    engine, ids = listener.opened.engine, [*row.prompt.ids, *answer]
    if isinstance(engine, OnnxEngine):
        return engine.logits(ids, conditioning=row.track.conditioning)
    assert isinstance(engine, TorchEngine)
    import torch

    with torch.inference_mode():
        conditioning = torch.from_numpy(row.track.conditioning)[None].to(engine.model.dtype)
        values: NDArray[np.float32] = engine.model(torch.tensor([ids]), conditioning=conditioning)[0].numpy()
    return values


def answers(listener: Listener, rows: Sequence[QuestionRow], *, is_alone: bool) -> Answers:
    """Greedy tokens of each row, one row after the other or as many at once as there is room for."""
    scheduler, tokens = listener.opened.scheduler, [list[int]() for _ in rows]
    groups = [[index] for index in range(len(rows))] if is_alone else [list(range(len(rows)))]
    for group in groups:
        submitted = [
            scheduler.submit(
                rows[index].prompt,
                rows[index].track.conditioning,
                options=OPTIONS,
                eos_ids=listener.opened.tokenizer.eos_ids,
            )
            for index in group
        ]
        for which, token in scheduler.stream(submitted):
            if token.id is not None:
                tokens[group[which]].append(token.id)
    return tokens


def clip_rows(listener: Listener, num_clips: int | None) -> list[QuestionRow]:
    """Questions about the example clips."""
    clips = sorted(CLIPS.glob("*.ogg"))[:num_clips]
    tracks = [listener.listen(clip) for clip in clips]
    return [make_row(listener.opened, track, [Turn(question)]) for track in tracks for question in QUESTIONS]


def held_out_rows(listener: Listener, num_prompts: int) -> list[QuestionRow]:
    """Questions of `benchmarks.mini` about its tracks, drawn from all kinds together."""
    tracks = [Track.from_dict(row) for row in read_lines(DATA / "mini_test.jsonl")]
    asks = [ask for asks in all_tasks(tracks).values() for ask in asks]
    features = read_features(DATA).numpy()
    rows = []
    for ask in random.Random(0).sample(asks, num_prompts):
        track = listener.recall(TrackFeatures(features[ask.row], ((0.0, 30.0),), 30.0), name=tracks[ask.row].id)
        rows.append(make_row(listener.opened, track, [Turn(ask.question)]))
    return rows


def measure(num_prompts: int, num_clips: int | None, *, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure every engine, one after the other."""
    computed: dict[str, Logits] = {}
    batched: dict[str, Answers] = {}
    result: dict[str, Any] = {}
    spoken: Answers = []
    for name, settings in ENGINES.items():
        report(name)
        listener = mu_llama.load("mini", **settings)  # type: ignore[arg-type]
        clips, asked = clip_rows(listener, num_clips), held_out_rows(listener, num_prompts)
        spoken = spoken or answers(listener, clips, is_alone=True)
        computed[name] = [logits(listener, row, answer) for row, answer in zip(clips, spoken, strict=True)]
        batched[name] = answers(listener, asked, is_alone=False)
        result[name] = {
            f"to {other}": cosines(computed[name], computed[other]) for other in REFERENCES if other in computed
        }
        alone = answers(listener, asked, is_alone=True)
        result[name]["equal answers"] = {
            "alone and in a batch": _share(alone, batched[name]),
            **{f"and {other}": _share(batched[name], batched[other]) for other in REFERENCES if other in batched},
        }
        if name not in REFERENCES:
            del computed[name]
    return result


def _share(one: Answers, two: Answers) -> float:
    return round(statistics.mean(a == b for a, b in zip(one, two, strict=True)), 4)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--clips", type=int, help="only so many")
    parser.add_argument("--json", type=Path, help="where to write instead of benchmarks/results/precision.json")
    arguments = parser.parse_args()
    result = measure(arguments.prompts, arguments.clips)
    what = "mini: lowest cosines of logits over questions about the example clips, share of equal greedy answers"
    write_result("precision", {"what": what, "prompts": arguments.prompts, "engines": result}, path=arguments.json)


if __name__ == "__main__":
    main()
