"""The published system's true sizes: convert a checkpoint of 17.7 GB, then load it and answer, in bf16, int8 and int4.

Weights are random, of the shapes and dtypes of the published ones. Needs about 55 GB of disk for a while
(`--folder` says where) and 16 GiB of memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import CLIP, COMMAND, write_result
from benchmarks.synthetic import write_checkpoint

KINDS = ("bf16", "int8", "int4")
NUM_TOKENS = 16
CLIP_S = 5.0
# Runs a command in a child of its own and reports that child's peak and time; writes are flushed to the disk.
TIMED = """
import os, resource, subprocess, sys, time, json
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
os.sync()
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
print(json.dumps({"seconds": round(time.perf_counter() - start, 1), "peak_gib": round(peak, 2)}))
"""


def timed(*command: str | Path) -> dict[str, float]:
    """Run a command with cold page caches where the system lets us drop them."""
    os.sync()
    drop = Path("/proc/sys/vm/drop_caches")
    if os.access(drop, os.W_OK):
        drop.write_text("3")
    line = [sys.executable, "-c", TIMED, *(str(part) for part in command)]
    return dict(json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout))


def bandwidth() -> float:
    """Bytes a second that summing a big array reads: the most that decoding can be fed with."""
    big = torch.ones(256_000_000)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        big.sum()
        seconds.append(time.perf_counter() - start)
    return big.numel() * 4 / statistics.median(seconds)


def answer(folder: Path, kind: str) -> dict[str, Any]:
    """Load the model, hear a clip, write tokens; in a process of its own."""
    import mu_llama
    from mu_llama.generation import Decoder, GenerationOptions

    first_rate = bandwidth()
    start = time.perf_counter()
    quantise: Any = None if kind == "bf16" else kind
    listener = mu_llama.load(folder, dtype="bf16", quantise=quantise, device="cpu", use_cache=False)
    loaded_s = time.perf_counter() - start
    track = listener.listen(CLIP, duration_s=CLIP_S)
    model = listener.opened.model
    decoder = Decoder(
        model,
        prompts=[listener.opened.tokenizer.encode_prompt("What instruments do you hear?")],
        conditioning=track.conditioning[None],
        options=GenerationOptions(max_new_tokens=NUM_TOKENS),
        eos_ids=frozenset(),
    )
    times = []
    for _ in decoder:
        times.append(time.perf_counter())
    step_s = statistics.median(after - before for before, after in itertools.pairwise(times[1:]))
    size = read_bytes(model.llama)
    rate = statistics.mean([first_rate, bandwidth()])
    return {
        "load_s": round(loaded_s, 1),
        "tokens_per_s": round(1 / step_s, 3),
        "weights_gb": round(size / 1e9, 2),
        "bandwidth_gb_per_s": round(rate / 1e9, 1),
        "share_of_bandwidth": round(size / step_s / rate, 3),
        "peak_gib": round(peak_gib(), 2),
    }


def read_bytes(llama: torch.nn.Module) -> int:
    """Bytes of weights that a token needs: all but the embedding, of which it reads a row."""
    from mu_llama.model.quantisation import weight_bytes

    return sum(weight_bytes(module) for module in llama.modules() if not list(module.children())) - weight_bytes(
        llama.get_input_embeddings()
    )


def peak_gib() -> float:
    """Peak resident memory of this process."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(work: Path) -> dict[str, Any]:
    """Do everything in a folder and give the figures."""
    source = write_checkpoint(work / "published")
    size_gb = source.stat().st_size / 1e9
    print(f"wrote {size_gb:.1f} GB", flush=True)
    copied = timed("cp", source, work / "copy.pth")
    (work / "copy.pth").unlink()
    print("cp", copied, flush=True)
    result: dict[str, Any] = {"checkpoint_gb": round(size_gb, 2), "cp": copied, "convert": {}, "answer": {}}
    for name, options in {"folder": (), "merged": ("--merge",)}.items():
        target = work / name
        converted = timed(COMMAND, "convert", source, target, *options)
        converted["times_cp"] = round(converted["seconds"] / copied["seconds"], 2)
        result["convert"][name] = converted
        print(name, converted, flush=True)
        if name == "merged":
            break
        for kind in KINDS:
            line = [sys.executable, "-m", "benchmarks.full_size", "--answer", kind, "--folder", str(target)]
            done = subprocess.run(line, check=True, capture_output=True, text=True)
            result["answer"][kind] = json.loads(done.stdout.splitlines()[-1])
            print(kind, result["answer"][kind], flush=True)
        subprocess.run(["rm", "-r", target], check=True)
    return result


def main() -> None:
    """Measure and write the result, or (with --answer) one answer in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--answer", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        print(json.dumps(answer(arguments.folder, arguments.answer)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        write_result("full_size", {"what": "true LLaMA-7B and MERT-330M sizes, random weights", **run(Path(work))})


if __name__ == "__main__":
    main()
