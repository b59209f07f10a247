"""What `benchmarks.gpu_check` checks: each part runs on one device and gives figures; units are in their names."""

from __future__ import annotations

import gc
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.gpu_decoding import decode, nf4
from benchmarks.gpu_target import GIB, Figures, PartFailed, Target, bandwidth_of
from benchmarks.measure import ROOT
from benchmarks.random_model import (
    LLAMA_7B,
    LLAMA_135M,
    LLAMA_TINY,
    MERT_330M,
    MERT_TINY,
    ModelSizes,
    random_mert,
    random_spec,
    size_bytes,
)

_MAX_COMPILED_LAYERS = 8


def prepare(target: Target) -> Target:
    """Set the process up for a target, before a part runs."""
    torch.manual_seed(0)
    if target.is_cuda:
        torch.cuda.set_device(target.device)
    return target


def golden(target: Target) -> Figures:
    """Run the golden tests on the device; a part of them if tiny."""
    chosen = ["tests/golden/test_mert.py", "-k", "variant_means"] if target.tiny else ["tests/golden"]
    line = [sys.executable, "-m", "pytest", *chosen, "--device", target.device.type, "-o", "addopts=-q --tb=short"]
    done = subprocess.run(
        [*line, "-p", "no:cacheprovider", "-W", "ignore"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    matches = re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)
    counts = {name: int(count) for count, name in matches}
    if done.returncode != 0 or not counts.get("passed"):
        print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr)
        numbers = ", ".join(f"{count} {name}" for name, count in counts.items())
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.MULTILINE)
        raise PartFailed(f"golden tests: {numbers or 'none ran'}; {_first(failed) or _first(done.stderr.splitlines())}")
    return {name: float(count) for name, count in counts.items()}


def _first(lines: list[str]) -> str:
    return f"first: {lines[0]}" if lines else ""


def bandwidth(target: Target) -> Figures:
    """Measure how fast the memory is copied and read."""
    return {"gb_per_s": bandwidth_of(target) / 1e9}


def train(target: Target, *, sizes: ModelSizes) -> Figures:
    """Train adapter and LoRA for some updates; the last one is timed, after warm-up."""
    return _train(target, sizes, compiled=False)


def train_compiled(target: Target, *, sizes: ModelSizes) -> Figures:
    """Train with torch.compile, and the same model without it; of fewer layers, each of which takes long to compile."""
    layers = min(_MAX_COMPILED_LAYERS, sizes.layers)
    sizes = replace(sizes, layers=layers, conditioned=min(layers, sizes.conditioned))
    plain = _train(target, sizes, compiled=False)
    gc.collect()
    if target.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(target.device)
    # Inductor would need a C++ compiler and minutes on a CPU: there only what comes before it is tried.
    traced_only = patch.object(torch, "compile", partial(torch.compile, backend="eager"))
    with nullcontext() if target.is_cuda else traced_only:
        return {
            **_train(target, sizes, compiled=True),
            **{f"plain_{name}": plain[name] for name in ("step_s", "peak_gib")},
        }


def _train(target: Target, sizes: ModelSizes, *, compiled: bool) -> Figures:
    from benchmarks.gpu_training import make_trainer

    rows, num_tokens = (8, 256) if sizes.hidden < LLAMA_7B.hidden else (1, 512)
    if target.tiny:
        sizes, rows, num_tokens = LLAMA_TINY, 2, 16
    spec = random_spec(sizes, narrow_bridge=False)
    trained = sum(stored.num_elements for stored in spec.adapter.values())
    # Gradients, two moments, what the optimizer needs while it steps; LoRA and activations.
    target.require(size_bytes(spec) + 16 * trained + 6 * GIB)
    updates = iter(make_trainer(spec, target.device, compiled=compiled, num_rows=rows, num_tokens=num_tokens))
    first_steps = [target.seconds(partial(next, updates)) for _ in range(3)]
    step_s = target.seconds(partial(next, updates))
    tokens = rows * num_tokens
    return {
        "layers": sizes.layers, "tokens_per_step": tokens, "first_step_s": first_steps[0], "step_s": step_s,
        "tokens_per_s": tokens / step_s, "peak_gib": target.peak_gib(),
    }  # fmt: skip


def mert(target: Target) -> Figures:
    """Encode one window of noise with MERT, in float32 and bf16."""
    from mu_llama.audio.waveform import Waveform

    window_s = 1 if target.tiny else 60
    figures: Figures = {"window_s": float(window_s)}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        encoder = random_mert(MERT_TINY if target.tiny else MERT_330M, target.device, dtype)
        noise = np.random.default_rng(0).standard_normal(window_s * encoder.rate_hz, np.float32)
        window = Waveform(0.1 * noise, encoder.rate_hz)
        if not np.isfinite(encoder.encode(window)).all():
            raise PartFailed(f"features in {name} aren't finite")
        times = [target.seconds(partial(encoder.encode, window)) for _ in range(1 if target.tiny else 3)]
        figures[f"{name}_audio_s_per_s"] = window_s / statistics.median(times)
    return {**figures, "peak_gib": target.peak_gib()}


PARTS: Mapping[str, Callable[[Target], Figures]] = {
    "golden": golden,
    "bandwidth": bandwidth,
    "bf16": decode,
    "nf4": nf4,
    "train-135m": partial(train, sizes=LLAMA_135M),
    "train-7b": partial(train, sizes=LLAMA_7B),
    "mert": mert,
    "train-135m-compiled": partial(train_compiled, sizes=LLAMA_135M),
    "train-7b-compiled": partial(train_compiled, sizes=LLAMA_7B),
}
"""Each gives figures, or raises."""
