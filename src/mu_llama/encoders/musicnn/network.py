"""The MusiCNN network in onnxruntime: patches of log mel spectrogram in, tags and features out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from mu_llama.arrays import FloatArray
from mu_llama.errors import CheckpointError

PATCH_FRAMES = 187
_DAMAGED = (failures.Fail, failures.InvalidArgument, failures.InvalidGraph, failures.InvalidProtobuf)


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """What the network says about P patches; V variants stand side by side in the order they were given."""

    tag_logits: FloatArray
    """Float32 (P, 50 V)."""
    penultimate: FloatArray
    """Float32 (P, 200 V): the last hidden layer."""
    pooled: FloatArray
    """Float32 (P, 1506 V): maximum and mean over time, interleaved, of 753 front-end and mid-end channels."""

    @property
    def tag_probabilities(self) -> FloatArray:
        """Float32 (P, 50 V) in [0, 1]; tags don't exclude each other."""
        return sigmoid(self.tag_logits)


class MusicnnNetwork:
    """One or more variants of MusiCNN over the same patches; several threads may call it at a time.

    Every call computes in its own thread, so that a process forked later can go on using it.

    Args:
        graphs: each variant's ONNX model, from `MusicnnWeights.graph`.

    Raises:
        CheckpointError: if a graph is damaged.
    """

    def __init__(self, graphs: Sequence[bytes]) -> None:
        self._sessions = [_session(graph) for graph in graphs]

    def __call__(self, patches: FloatArray) -> NetworkOutput:
        """Run all variants.

        Args:
            patches: float32 log mel patches of shape (P, 187, 96).
        """
        names = ["tag_logits", "penultimate", "pooled"]
        by_variant = [session.run(names, {"patches": patches}) for session in self._sessions]
        return NetworkOutput(*(np.concatenate(parts, -1) for parts in zip(*by_variant, strict=True)))


def sigmoid(logits: FloatArray) -> FloatArray:
    """Turn log odds into probabilities, without overflow.

    Example:
        >>> sigmoid(np.array([-1000.0, 0.0, 1000.0], np.float32)).tolist()
        [0.0, 0.5, 1.0]
    """
    probabilities: FloatArray = np.exp(-np.logaddexp(np.float32(0), -logits))
    return probabilities


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except _DAMAGED as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"MusiCNN's graph is damaged ({reason}): reinstall mu-llama") from error
