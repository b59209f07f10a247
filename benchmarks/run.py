"""Run every benchmark, one after the other, each in a process of its own: `make bench`."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "musicnn", "ask", "batching", "decode", "mini", "memory", "quantized", "precision", "training", "musicqa",
    "full_size",
)  # fmt: skip

if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
