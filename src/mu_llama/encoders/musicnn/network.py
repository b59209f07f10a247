"""The MusiCNN network: patches of log mel spectrogram in, tags and features out.

Topology: Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging" (2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mu_llama.encoders.musicnn.front_end import FrontEndLayer, Tensors, norm_affine
from mu_llama.errors import CheckpointError

PATCH_FRAMES = 187
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
class NetworkOutput:
    """What the network says about P patches; V variants stand side by side in the order they were given."""

    tag_logits: torch.Tensor
    """Float32 (P, 50 V)."""
    penultimate: torch.Tensor
    """Float32 (P, 200 V): the last hidden layer."""
    pooled: torch.Tensor
    """Float32 (P, 1506 V): maximum and mean over time, interleaved, of 753 front-end and mid-end channels."""

    @property
    def tag_probabilities(self) -> torch.Tensor:
        """Float32 (P, 50 V) in [0, 1]; tags don't exclude each other."""
        return torch.sigmoid(self.tag_logits)


class MusicnnNetwork(nn.Module):
    """One or more variants of MusiCNN over the same patches.

    Args:
        variants: each variant's tensors by `<layer>.<leaf>`, as `recipes/musicnn/convert.py` writes them.

    Raises:
        CheckpointError: if a variant lacks a tensor or has one that isn't known.
    """

    def __init__(self, variants: Sequence[Tensors]) -> None:
        super().__init__()
        for tensors in variants:
            _check_names(tensors)
        self.front_end = nn.ModuleList(FrontEndLayer(variants, layer, num_frames=PATCH_FRAMES) for layer in FRONT_END)
        self.back_ends = nn.ModuleList(_BackEnd(tensors) for tensors in variants)

    def forward(self, patches: torch.Tensor) -> NetworkOutput:
        """Run all variants.

        Args:
            patches: float32 log mel patches of shape (P, 187, 96).
        """
        by_variant = zip(*(layer(patches) for layer in self.front_end), strict=True)
        parts = [back_end(torch.cat(layers, -1)) for back_end, layers in zip(self.back_ends, by_variant, strict=True)]
        return NetworkOutput(*(torch.cat(part, -1) for part in zip(*parts, strict=True)))


class _BackEnd(nn.Module):
    """One variant's mid-end (three convolutions over time), pooling over time and dense layers."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.midend = nn.ModuleList(_MidendLayer(tensors, layer) for layer in MIDEND)
        pooled_scale, pooled_offset = norm_affine(tensors, "pooled")
        kernel = tensors["penultimate.kernel"]
        self.penultimate = _linear(
            kernel * pooled_scale,
            tensors["penultimate.bias"] + (kernel.double() @ pooled_offset.double()).float(),
        )
        self.norm = _Affine(*norm_affine(tensors, "penultimate"))
        self.tags = _linear(tensors["tags.kernel"], tensors["tags.bias"])

    def forward(self, channels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map front-end channels (P, frames, 561) to tag logits, penultimate and pooled features."""
        first = self.midend[0](channels)
        second = self.midend[1](first) + first
        third = self.midend[2](second) + second
        features = torch.cat((channels, first, second, third), -1)
        pooled = torch.stack((features.amax(1), features.mean(1)), -1).flatten(1)
        penultimate = self.norm(F.relu(self.penultimate(pooled)))
        return self.tags(penultimate), penultimate, pooled


class _MidendLayer(nn.Module):
    """Convolution over time, ReLU and batch normalisation."""

    kernel: torch.Tensor
    bias: torch.Tensor

    def __init__(self, tensors: Tensors, layer: str) -> None:
        super().__init__()
        kernel = tensors[f"{layer}.kernel"].transpose(1, 2)  # (filters, channels, taps)
        self.register_buffer("kernel", kernel.contiguous())
        self.register_buffer("bias", tensors[f"{layer}.bias"])
        self.norm = _Affine(*norm_affine(tensors, layer))

    def forward(self, channels: torch.Tensor) -> torch.Tensor:
        """Map (P, frames, channels) to (P, frames, filters)."""
        convolved = F.conv1d(channels.transpose(1, 2), self.kernel, self.bias, padding=self.kernel.shape[2] // 2)
        normed: torch.Tensor = self.norm(F.relu(convolved).transpose(1, 2))
        return normed


class _Affine(nn.Module):
    """A batch normalisation whose statistics are fixed."""

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, scale: torch.Tensor, offset: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Scale and shift the last dimension."""
        return values * self.scale + self.offset


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _check_names(tensors: Tensors) -> None:
    expected = {f"{layer}.{leaf}" for layer, leaves in LEAVES.items() for leaf in leaves}
    missing, unknown = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
    if missing or unknown:
        raise CheckpointError(
            f"the MusiCNN weights lack {missing} and hold unknown {unknown}; expected the tensors that "
            "recipes/musicnn/convert.py writes: reinstall mu-llama"
        )
