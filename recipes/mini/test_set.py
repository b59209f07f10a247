"""Write the held-out clips' features and labels as a small fixture that benchmarks/mini.py scores anywhere.

Run: python recipes/mini/test_set.py --work DIR --out benchmarks/data
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from training_data import read_examples

LABELS = ("instruments", "lead", "solo", "drums", "ensemble", "vocals", "style")


def write_test_set(work: Path, out: Path) -> None:
    """Write mini_test.safetensors (N, L, D in fp16) and mini_test.jsonl, a line a row."""
    examples = [example for example in read_examples(work) if example.split == "test"]
    out.mkdir(parents=True, exist_ok=True)
    features = torch.stack([example.features() for example in examples]).half()
    save_file({"features": features}, out / "mini_test.safetensors")
    with (out / "mini_test.jsonl").open("w") as file:
        for example in examples:
            labels = {name: example.clip.labels.get(name) for name in LABELS}
            file.write(json.dumps({"id": example.id, "group": example.group, "labels": labels}) + "\n")
    print(f"{len(examples)} clips in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/data"))
    arguments = parser.parse_args()
    write_test_set(arguments.work, arguments.out)
