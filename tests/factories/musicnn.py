"""MusiCNN layer by layer in torch, as its paper describes it: the slow oracle of the graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from mu_llama.encoders.musicnn.weights import FRONT_END, MIDEND

Array = npt.NDArray[np.float32]


def plain_network(tensors: Mapping[str, Array], patches: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run one variant, all its filters included.

    Args:
        tensors: by `<layer>.<leaf>`, as `MusicnnWeights.of_variant` gives them.
        patches: log mel of shape (P, 187, 96), in the dtype to compute in.

    Returns:
        `tag_logits` (P, 50), `penultimate` (P, 200) and `pooled` (P, 1506).
    """
    weights = {name: torch.tensor(tensor, dtype=patches.dtype) for name, tensor in tensors.items()}

    def norm(layer: str, values: torch.Tensor) -> torch.Tensor:
        statistics_of = (weights[f"{layer}.{leaf}"] for leaf in ("mean", "variance", "gamma", "beta"))
        return F.batch_norm(values, *statistics_of, eps=1e-3)

    normed = norm("input", patches[:, None])
    channels = []
    for layer in FRONT_END:
        kernel = weights[f"{layer}.kernel"][:, None]
        padded = F.pad(normed, (0, 0, (kernel.shape[2] - 1) // 2, kernel.shape[2] // 2))
        convolved = F.relu(F.conv2d(padded, kernel, weights[f"{layer}.bias"]))
        channels.append(norm(layer, convolved).amax(3))
    stacked = [torch.cat(channels, 1)]
    for layer in MIDEND:
        kernel = weights[f"{layer}.kernel"].transpose(1, 2)
        convolved = norm(layer, F.relu(F.conv1d(stacked[-1], kernel, weights[f"{layer}.bias"], padding=3)))
        stacked.append(convolved if layer == MIDEND[0] else convolved + stacked[-1])
    features = torch.cat(stacked, 1)
    pooled = torch.stack((features.amax(2), features.mean(2)), -1).flatten(1)
    dense = F.linear(norm("pooled", pooled), weights["penultimate.kernel"], weights["penultimate.bias"])
    penultimate = norm("penultimate", F.relu(dense))
    logits = F.linear(penultimate, weights["tags.kernel"], weights["tags.bias"])
    return {"tag_logits": logits, "penultimate": penultimate, "pooled": pooled}
