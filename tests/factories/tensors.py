"""Torch's tensors and transformers' configs as the package has them on disk, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PretrainedConfig

from mu_llama.arrays import to_numpy, to_torch
from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_memory
from mu_llama.model.config import LlamaConfig


def stored(tensors: Mapping[str, torch.Tensor]) -> dict[str, LazyTensor]:
    """Describe tensors as those of a file."""
    return {name: in_memory(to_numpy(value)) for name, value in tensors.items()}


def read(tensor: LazyTensor) -> torch.Tensor:
    """Read what a file describes."""
    return to_torch(tensor.read())


def own_config(config: PretrainedConfig) -> LlamaConfig:
    """Give the sizes of a LLaMA of transformers."""
    return LlamaConfig.from_json(config.to_dict())
