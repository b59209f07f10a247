"""Write a trained model folder in half precision, as the package embeds it.

Run: python recipes/mini/ship.py work/mini/run/model src/mu_llama/embedded/mini
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mu_llama.checkpoints.native import ADAPTER_FILE, TUNING_FILE, read_model_config, write_model_files
from mu_llama.checkpoints.safetensors_files import read_safetensors
from mu_llama.checkpoints.stored import StoredTensor, in_memory

LICENCES = {"adapter and LoRA": "Apache-2.0", "SmolLM2-135M-Instruct": "Apache-2.0", "MusiCNN": "ISC"}
MOST_BYTES = 40_000_000


def halved(path: Path) -> dict[str, StoredTensor]:
    """Read a file's tensors as fp16."""
    return {name: in_memory(stored.read().half()) for name, stored in read_safetensors(path).items()}


def ship(model: Path, out: Path) -> None:
    """Write the folder.

    Raises:
        ValueError: if it is larger than the package may be.
    """
    config = replace(read_model_config(model), name="mini", licences=LICENCES)
    out.mkdir(parents=True, exist_ok=True)
    write_model_files(out, config, adapter=halved(model / ADAPTER_FILE), tuning=halved(model / TUNING_FILE))
    size = sum(path.stat().st_size for path in out.iterdir())
    if size > MOST_BYTES:
        raise ValueError(f"{out} has {size} bytes; the most is {MOST_BYTES}: choose a smaller rank or bridge")
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    ship(arguments.model, arguments.out)
