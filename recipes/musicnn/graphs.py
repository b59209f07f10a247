"""Makes `msd.onnx` and `mtt.onnx`, which onnxruntime runs, beside the weight file that they are made of.

Run from the root of the checkout: `python -m recipes.musicnn.graphs [--out FOLDER]`, whenever the weight file or
`encoders/musicnn/graph.py` changes; a test compares them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mu_llama.encoders.musicnn.graph import variant_graph
from mu_llama.encoders.musicnn.weights import read_musicnn_weights

OUT = Path(__file__).parents[2] / "src/mu_llama/encoders/musicnn_weights"


def main() -> None:
    """Write a file for each variant and print its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    folder = parser.parse_args().out
    weights = read_musicnn_weights()
    for variant in weights.tag_names:
        graph = variant_graph(weights.of_variant(variant))
        (folder / f"{variant}.onnx").write_bytes(graph)
        print(f"{variant}.onnx: {len(graph) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
