"""The published system's true sizes: convert a checkpoint of 17.7 GB, then load it and answer, in bf16, int8 and int4.

The torch engine answers from the converted folder, the onnx engine in int4 from what `convert --to onnx` writes.

Weights are random, of the shapes and dtypes of the published ones. Needs about 55 GB of disk for a while
(`--folder` says where) and 16 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import CLIP, COMMAND, write_result
from benchmarks.synthetic import write_checkpoint
from mu_llama.arrays import FloatArray
from mu_llama.engine.onnx.description import EMBEDDING
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.protocol import Engine
from mu_llama.engine.torch.engine import TorchEngine

KINDS = ("bf16", "int8", "int4")
ONNX = "onnx int4"
NUM_TOKENS = 16
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


def answer(folder: Path, kind: str) -> dict[str, Any]:
    """Load the model, encode a clip, generate tokens; in a process of its own."""
    import mu_llama

    start = time.perf_counter()
    if kind == ONNX:
        listener = mu_llama.load(folder, use_cache=False)
    else:
        quantize: Any = None if kind == "bf16" else kind
        listener = mu_llama.load(folder, engine="torch", dtype="bf16", quantize=quantize, device="cpu", use_cache=False)
    loaded_s = time.perf_counter() - start
    features = listener.extractor.extract(CLIP).values
    encoded_s, start = time.perf_counter() - start - loaded_s, time.perf_counter()
    engine = listener.opened.engine
    opened_s, start = time.perf_counter() - start, time.perf_counter()
    conditioning = engine.condition(features)
    conditioned_s = time.perf_counter() - start
    prompt = listener.opened.tokenizer.encode_prompt("What instruments do you hear?")
    steps, peak = token_times(engine, prompt, conditioning), peak_gib()
    size = read_bytes(engine)
    # The memory's speed wanders: each token is held against a plain read right after it.
    big = torch.ones(128_000_000)
    shares, rates = [], []
    for step_s in token_times(engine, prompt, conditioning, after=lambda: rates.append(read_rate(big))):
        shares.append(size / step_s / rates[len(shares)])
    return {
        "load_s": round(loaded_s, 1),
        "encode_s": round(encoded_s, 1),
        "open_s": round(opened_s, 1),
        "condition_s": round(conditioned_s, 1),
        "tokens_per_s": round(1 / statistics.median(steps), 3),
        "weights_gb": round(size / 1e9, 2),
        "bandwidth_gb_per_s": round(statistics.median(rates) / 1e9, 1),
        "share_of_bandwidth": round(statistics.median(shares), 3),
        "peak_gib": round(peak, 2),
    }


def token_times(
    engine: Engine, prompt: list[int], conditioning: FloatArray, after: Callable[[], None] = lambda: None
) -> list[float]:
    """Seconds of each token but the first, which reads the prompt; `after` is called between them."""
    rows = engine.new_rows(1)
    row = rows.join(conditioning)
    token, seconds = int(rows.read(row, prompt).argmax()), []
    for _ in range(NUM_TOKENS - 1):
        start = time.perf_counter()
        token = int(rows.step({row: token})[row].argmax())
        seconds.append(time.perf_counter() - start)
        after()
    return seconds


def read_rate(big: torch.Tensor) -> float:
    """Bytes a second of summing a big array: the most that decoding can be fed with."""
    start = time.perf_counter()
    big.sum()
    return big.numel() * big.element_size() / (time.perf_counter() - start)


def read_bytes(engine: Engine) -> int:
    """Bytes of weights that a token needs: all but the embedding, of which it reads a row."""
    if isinstance(engine, OnnxEngine):
        return sum(stored.size_bytes for name, stored in engine.description.table.items() if name != EMBEDDING)
    assert isinstance(engine, TorchEngine)
    llama = engine.model.llama

    def size(module: torch.nn.Module) -> int:
        tensors = (*module.parameters(), *module.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    return size(llama) - size(llama.get_input_embeddings())


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
    for name, options in {"folder": (), "merged": ("--merge",), "onnx": ("--to", "onnx")}.items():
        target = work / name
        converted = timed(COMMAND, "convert", source, target, *options)
        converted["times_cp"] = round(converted["seconds"] / copied["seconds"], 2)
        result["convert"][name] = converted
        print(name, converted, flush=True)
        for kind in {"folder": KINDS, "onnx": (ONNX,)}.get(name, ()):
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
    parser.add_argument("--answer", choices=(*KINDS, ONNX), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        print(json.dumps(answer(arguments.folder, arguments.answer)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        write_result("full_size", {"what": "true LLaMA-7B and MERT-330M sizes, random weights", **run(Path(work))})


if __name__ == "__main__":
    main()
