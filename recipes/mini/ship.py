"""Write a trained model folder in half precision, as the package embeds it.

A LoRA that went on from an earlier one can be averaged with it: the mean of two keeps what each is good at (Wortsman et
al., 2022, arXiv:2203.05482), where the adapter is the same. How much each counts is a choice between their strengths.

Run: python -m recipes.mini.ship work/mini/run/model src/mu_llama/embedded/mini [--mean-with FOLDER [--share 0.5]]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from mu_llama.arrays import FLOAT16, FLOAT32, to_numpy, to_torch
from mu_llama.checkpoints.formats.native import ADAPTER_FILE, TUNING_FILE, read_model_config, write_model_files
from mu_llama.checkpoints.formats.tensor_files import read_safetensors
from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_memory

LICENCES = {"adapter and LoRA": "Apache-2.0", "SmolLM2-135M-Instruct": "Apache-2.0", "MusiCNN": "ISC"}
MAX_BYTES = 40_000_000


def halved(path: Path) -> dict[str, LazyTensor]:
    """Read a file's tensors as fp16."""
    return {name: in_memory(stored.to(FLOAT16).read()) for name, stored in read_safetensors(path).items()}


def averaged(one: Path, other: Path, share: float = 0.5) -> dict[str, LazyTensor]:
    """The mean of two files' tensors as fp16.

    Args:
        one: a file.
        other: one with the same names and shapes.
        share: of the first in the mean; beyond 1 it goes on past the first, away from the other.

    Raises:
        ValueError: if they don't hold the same names and shapes.
    """
    tensors, others = read_safetensors(one), read_safetensors(other)
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in others.items()}:
        raise ValueError(f"{one} and {other} hold other names or shapes; only models of the same LoRA have a mean")
    means = {}
    for name in tensors:
        start, end = (to_torch(half[name].to(FLOAT32).read()) for half in (others, tensors))
        means[name] = in_memory(to_numpy(start.lerp(end, share).half()))
    return means


def ship(model: Path, out: Path, *, mean_with: Path | None = None, share: float = 0.5) -> None:
    """Write the folder.

    Args:
        model: the trained folder.
        out: where.
        mean_with: an earlier model, whose LoRA is averaged with this one's.
        share: of this model in the mean.

    Raises:
        ValueError: if it is larger than the package may be, or the other model has another adapter.
    """
    adapter, tuning = halved(model / ADAPTER_FILE), halved(model / TUNING_FILE)
    if mean_with is not None:
        if not _are_equal(adapter, halved(mean_with / ADAPTER_FILE)):
            raise ValueError(f"{model} and {mean_with} have other adapters; a LoRA serves only the one it learned from")
        tuning = averaged(model / TUNING_FILE, mean_with / TUNING_FILE, share)
    config = replace(read_model_config(model), name="mini", licences=LICENCES)
    out.mkdir(parents=True, exist_ok=True)
    write_model_files(out, config, adapter=adapter, tuning=tuning)
    size = sum(path.stat().st_size for path in out.iterdir())
    if size > MAX_BYTES:
        raise ValueError(f"{out} has {size} bytes; the most is {MAX_BYTES}: choose a smaller rank or bridge")
    print(f"{out}: {size / 1e6:.1f} MB")


def _are_equal(one: dict[str, LazyTensor], other: dict[str, LazyTensor]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name].read(), other[name].read()) for name in one)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mean-with", type=Path, help="model folder whose LoRA is averaged with this one's")
    parser.add_argument("--share", type=float, default=0.5, help="of MODEL in the mean (default 0.5)")
    arguments = parser.parse_args()
    ship(arguments.model, arguments.out, mean_with=arguments.mean_with, share=arguments.share)
