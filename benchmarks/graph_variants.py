"""What was tried for the onnx engine's graphs: widths, block sizes, zero points, accuracy levels, with `mini`.

Cosines of the logits with those of the fp32 graph, over questions about the example clips and the answers to them, and
speeds, all graphs in turns: one row, 16 rows, reading a prompt of 110 tokens.

Run: python -m benchmarks.graph_variants [--repeats N] [--threads N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import mu_llama
from benchmarks.measure import write_result
from benchmarks.precision import answers, clip_rows, cosines
from mu_llama.arrays import FLOAT32
from mu_llama.checkpoints.lora import merged_llama
from mu_llama.engine.onnx.description import GraphOptions
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.onnx.graph import build_graph

VARIANTS = {
    "fp32": GraphOptions("fp32"),
    "int8, blocks of 16 (the default)": GraphOptions("int8", block_size=16),
    "int8, 32": GraphOptions("int8"),
    "int8, 64": GraphOptions("int8", block_size=64),
    "int8, 128": GraphOptions("int8", block_size=128),
    "int8, 32, zero points": GraphOptions("int8", symmetric=False),
    "int8, 32, products in float32": GraphOptions("int8", accuracy_level=0),
    "int4, 32, zero points": GraphOptions("int4", symmetric=False),
    "int4, 32": GraphOptions("int4"),
    "int4, 16, zero points": GraphOptions("int4", block_size=16, symmetric=False),
    "int4, 32, output embedding too": GraphOptions("int4", symmetric=False, head_bits=4),
}
NUM_STEPS, NUM_ROWS, NUM_READ = 32, 16, 110


def tokens_per_s(engine: OnnxEngine, num_rows: int) -> float:
    """Steps of so many rows that have read `NUM_READ` tokens."""
    rows = engine.new_rows(num_rows)
    ids = [rows.join() for _ in range(num_rows)]
    for row in ids:
        rows.read(row, list(range(100, 100 + NUM_READ)))
    start = time.perf_counter()
    for _ in range(NUM_STEPS):
        rows.step(dict.fromkeys(ids, 200))
    return num_rows * NUM_STEPS / (time.perf_counter() - start)


def read_ms(engine: OnnxEngine) -> float:
    """Milliseconds of reading a prompt."""
    rows = engine.new_rows(1)
    row = rows.join()
    start = time.perf_counter()
    rows.read(row, list(range(100, 100 + NUM_READ)))
    return 1000 * (time.perf_counter() - start)


def measure(folder: Path, *, repeats: int, num_threads: int) -> dict[str, Any]:
    """Build all variants in a folder and measure them."""
    listener = mu_llama.load("mini", engine="onnx", dtype="fp32")
    parts = listener.opened.parts
    config, tensors = merged_llama(parts.llama, parts.tuning, dtype=FLOAT32, source=parts.source)
    engines: dict[str, OnnxEngine] = {}
    result: dict[str, Any] = {}
    for number, (name, options) in enumerate(VARIANTS.items()):
        (folder / str(number)).mkdir()
        start = time.perf_counter()
        build_graph(folder / str(number), config, tensors, options=options)
        result[name] = {
            "build_s": round(time.perf_counter() - start, 1),
            "megabytes": round(sum(path.stat().st_size for path in (folder / str(number)).iterdir()) / 1e6),
        }
        engines[name] = OnnxEngine(
            folder / str(number), num_audio_tokens=parts.adapter_config.num_audio_tokens, num_threads=num_threads
        )
    asked = clip_rows(listener, None)
    spoken = answers(listener, asked, is_alone=True)
    expected = []
    for name, engine in engines.items():
        values = [
            engine.logits([*row.prompt.ids, *answer], conditioning=row.track.conditioning)
            for row, answer in zip(asked, spoken, strict=True)
        ]
        expected = expected or values
        result[name]["cosine"] = cosines(values, expected)
    speeds: dict[str, dict[str, list[float]]] = {name: {"row": [], "rows": [], "read": []} for name in engines}
    for _ in range(repeats):
        for name, engine in engines.items():
            speeds[name]["row"].append(tokens_per_s(engine, 1))
            speeds[name]["rows"].append(tokens_per_s(engine, NUM_ROWS))
            speeds[name]["read"].append(read_ms(engine))
    for name, measured in speeds.items():
        result[name] |= {
            "row_per_s": round(statistics.median(measured["row"]), 1),
            "rows_per_s": round(statistics.median(measured["rows"])),
            "read_ms": round(statistics.median(measured["read"])),
        }
    return result


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write instead of benchmarks/results/graph_variants.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        variants = measure(Path(folder), repeats=arguments.repeats, num_threads=arguments.threads)
    result = {"threads": arguments.threads, "repeats": arguments.repeats, "variants": variants}
    write_result("graph_variants", result, path=arguments.json)


if __name__ == "__main__":
    main()
