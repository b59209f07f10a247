"""Training steps at SmolLM2's size: cached features and bucketed batches against the published way.

The published way: encode the track in the loop, one row at a time, padded to the longest. Also the share of a step that
waits for data, and peak memory against the arithmetic that a run prints.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.measure import write_result
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.formats.encoder import make_encoder
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.training.collate import TokenizedExamples, answer_loss, collate, tokenize_examples
from mu_llama.training.config import TrainConfig
from mu_llama.training.config_file import parse_config
from mu_llama.training.distributed import make_accelerator
from mu_llama.training.loop import Trainer
from mu_llama.training.memory import estimate_memory
from mu_llama.training.optimizer import build_optimizer
from mu_llama.training.phases import phase_by_name
from mu_llama.training.run_folder import RunFolder
from mu_llama.training.setup import (
    TrainingData,
    base_parts,
    find_llama,
    fresh_parts,
    read_data,
)
from mu_llama.training.trainable import build_trainable

NUM_TRACKS, SECONDS, MAX_TOKENS = 12, 30.0, 512
BATCH, OURS_STEPS, PUBLISHED_STEPS = 8, 6, 4


def write_data(folder: Path) -> Path:
    """Write tracks of 30 s and four question-answer pairs each, of the lengths that MusicQA has."""
    noise, words = np.random.default_rng(0), random.Random(0)
    rows = []
    for index in range(NUM_TRACKS):
        time_s = np.arange(int(SECONDS * 16000)) / 16000
        sound = 0.3 * np.sin(2 * np.pi * 55 * (index + 2) * time_s) + noise.normal(0, 0.02, time_s.size)
        soundfile.write(folder / f"{index}.wav", sound.astype(np.float32), 16000)
        for question in range(4):
            answer = " ".join(words.choice(("a", "slow", "bright", "piano", "melody", "over", "drums")) for _ in range(
                words.randint(5, 50)))  # fmt: skip
            rows.append({"audio": f"{index}.wav", "question": f"Question {question}: what is it?", "answer": answer})
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(folder: Path) -> TrainConfig:
    """A run as configs/mini.yaml has it, on the CPU in bf16."""
    return parse_config(
        {
            "name": "benchmark",
            "phase": "joint",
            "model": {
                "llama": "smollm2-135m-instruct",
                "encoder": {"kind": "musicnn"},
                "fresh": {"template": "chatml-music", "num_conditioned_layers": 24, "bridge_width": 1152},
            },
            "data": {"train": [{"path": str(folder / "data.jsonl")}], "max_tokens": MAX_TOKENS},
            "optimiser": {"lr": 1e-4},
            "schedule": {"steps": 1000},
            "batch": {"size": BATCH},
            "run": {"out": str(folder / "run")},
        }
    )


def start(folder: Path) -> tuple[TrainConfig, Any, TrainingData, TokenizedExamples, Any]:
    """Everything a run starts with."""
    config = settings(folder)
    home = home_folder()
    data = read_data(config, base_parts(config, home=home, report=print), home=home)
    parts = fresh_parts(config, data, find_llama(config, home=home, report=print))
    rows = tokenize_examples(data.train, parts, max_tokens=MAX_TOKENS)
    model = build_trainable(parts, phase=phase_by_name(config.phase), dtype=torch.bfloat16)
    return config, parts, data, rows, model


def ours(folder: Path) -> dict[str, float]:
    """Updates of the trainer; also how much memory they took beyond what was there before the model."""
    run = RunFolder(folder / "run")
    run.path.mkdir(exist_ok=True)
    accelerator = make_accelerator(settings(folder), run)
    config, _, data, rows, model = start(folder)
    # What is there without the model: libraries, data, features, tokenizer.
    estimate = estimate_memory(model, config, rows=rows.rows, num_audio_tokens=0)
    resident = _resident_bytes() - estimate.weights
    trainer = Trainer(config, model, data=data, tokenized=rows, accelerator=accelerator, folder=run)
    steps = [step for step, _ in zip(trainer, range(OURS_STEPS), strict=False)][1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident
    return {
        "examples_per_s": BATCH / statistics.median(step.seconds for step in steps),
        "data_share": sum(step.data_s for step in steps) / sum(step.seconds for step in steps),
        "memory_gb": peak / 1e9,
        "arithmetic_gb": estimate.total / 1e9,
        "memory_times_arithmetic": peak / estimate.total,
    }


def published_way(folder: Path) -> dict[str, float]:
    """One row at a time, encoded in the loop, padded to max_tokens."""
    _, parts, _, rows, model = start(folder)
    extractor = FeatureExtractor(lambda: make_encoder(parts, device="cpu"), plan=_plan(parts), cache=None)
    optimizer = build_optimizer(model, lr=1e-4)
    assert extractor.encoder
    model.train()
    seconds = []
    for index in range(PUBLISHED_STEPS + 1):
        start_s = time.perf_counter()
        example = rows.examples[index]
        assert example.audio is not None
        features = torch.from_numpy(extractor.extract(example.audio).values)
        batch = collate([rows.rows[index]], [features], num_tokens=MAX_TOKENS)
        with torch.autocast("cpu", torch.bfloat16):
            loss = answer_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start_s)
    return {"examples_per_s": 1 / statistics.median(seconds[1:])}


def _plan(parts: Any) -> Any:
    from mu_llama.audio.windows import PLANS

    return PLANS[parts.window]


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


def main() -> None:
    """Measure both in processes of their own, in turns, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=("ours", "published_way"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps({"ours": ours, "published_way": published_way}[arguments.way](arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        rounds: dict[str, list[dict[str, float]]] = {"ours": [], "published_way": []}
        for _ in range(3):
            for way, results in rounds.items():
                line = [sys.executable, "-m", "benchmarks.training", "--way", way, "--folder", folder]
                done = subprocess.run(line, check=True, capture_output=True, text=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
    middle = {
        way: {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}
        for way, rows in rounds.items()
    }
    ratio = round(middle["ours"]["examples_per_s"] / middle["published_way"]["examples_per_s"], 2)
    what = "training at SmolLM2-135M's size, joint phase, bf16, clips of 30 s"
    write_result("training", {"what": what, **middle, "times_published_way": ratio})


if __name__ == "__main__":
    main()
