"""The weights of MusiCNN that are part of this package: tensors, tag names, and the graph of each variant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Literal

import safetensors.numpy

from mu_llama.arrays import FloatArray
from mu_llama.errors import CheckpointError

Variant = Literal["msd", "mtt"]
Tensors = Mapping[str, FloatArray]

FRONT_END = ("timbral_38", "timbral_67", "temporal_128", "temporal_64", "temporal_32")
MIDEND = ("midend_1", "midend_2", "midend_3")
_WEIGHTS, _NORM = ("kernel", "bias"), ("gamma", "beta", "mean", "variance")
LEAVES = {
    "input": _NORM,
    **dict.fromkeys(FRONT_END + MIDEND, _WEIGHTS + _NORM),
    "pooled": _NORM,
    "penultimate": _WEIGHTS + _NORM,
    "tags": _WEIGHTS,
}
"""The names of one variant's tensors: leaves by layer."""


@dataclass(frozen=True)
class MusicnnWeights:
    """What the network is made of."""

    tensors: Tensors
    """`mel_filters`, and each variant's tensors by `<variant>.<layer>.<leaf>`."""
    tag_names: Mapping[Variant, tuple[str, ...]]
    """Each variant's 50 tags in the order of its outputs."""
    sha256: str
    """Hex digest of the whole file of tensors."""
    graphs: Mapping[Variant, bytes] = field(default_factory=dict)
    """ONNX models that were made of these tensors before; one that is missing is made when it is needed."""

    def of_variant(self, variant: Variant) -> Tensors:
        """One variant's tensors, by `<layer>.<leaf>`.

        Raises:
            CheckpointError: if it lacks a tensor or has one that isn't known.
        """
        prefix = f"{variant}."
        tensors = {
            name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)
        }
        expected = {f"{layer}.{leaf}" for layer, leaves in LEAVES.items() for leaf in leaves}
        missing, unknown = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
        if missing or unknown:
            raise CheckpointError(
                f"the MusiCNN weights lack {missing} and hold unknown {unknown}; expected the tensors that "
                "recipes/musicnn/convert.py writes: reinstall mu-llama"
            )
        return tensors

    def graph(self, variant: Variant) -> bytes:
        """The ONNX model of a variant.

        Raises:
            CheckpointError: as `of_variant`.
        """
        tensors = self.of_variant(variant)
        if variant in self.graphs:
            return self.graphs[variant]
        from mu_llama.encoders.musicnn.graph import variant_graph  # imports onnx, which takes 0.3 s

        return variant_graph(tensors)


def read_musicnn_weights() -> MusicnnWeights:
    """Read the files that are part of this package.

    Raises:
        CheckpointError: if the tensors are missing or damaged.
    """
    folder = resources.files("mu_llama.encoders") / "musicnn_weights"
    try:
        content = (folder / "musicnn.safetensors").read_bytes()
        tensors = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        names: dict[Variant, list[str]] = json.loads(header["__metadata__"]["about"])["tags"]
        files = {variant: folder / f"{variant}.onnx" for variant in names}
        graphs = {variant: file.read_bytes() for variant, file in files.items() if file.is_file()}
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"MusiCNN's weights are damaged ({error}): reinstall mu-llama") from error
    tag_names = {variant: tuple(tags) for variant, tags in names.items()}
    return MusicnnWeights(tensors, tag_names, hashlib.sha256(content).hexdigest(), graphs)
