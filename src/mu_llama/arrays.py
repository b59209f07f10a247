"""Arrays of weights and features: their dtypes, aligned memory, and the way between numpy and torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from mu_llama.errors import CheckpointError

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]
"""An array of any shape and dtype."""
FloatArray = np.ndarray[Any, np.dtype[np.float32]]
"""A float32 array of any shape."""
DType = np.dtype[Any]
"""Any dtype."""
BFLOAT16: DType = np.dtype(ml_dtypes.bfloat16)
FLOAT16: DType = np.dtype(np.float16)
FLOAT32: DType = np.dtype(np.float32)

# Of a cache line: what vector instructions read fastest, and what torch and onnxruntime give their own memory.
_ALIGNMENT_BYTES = 64


def is_floating_point(dtype: DType) -> bool:
    """Whether it is a dtype of real numbers; numpy itself doesn't count bf16 among them."""
    return dtype.kind == "f" or dtype == BFLOAT16


def empty(shape: Sequence[int], dtype: DType) -> Array:
    """Make an array of undefined numbers that begins where a cache line begins."""
    size_bytes = math.prod(shape) * dtype.itemsize
    raw = np.empty(size_bytes + _ALIGNMENT_BYTES, np.uint8)
    start = -raw.__array_interface__["data"][0] % _ALIGNMENT_BYTES
    return raw[start : start + size_bytes].view(dtype).reshape(shape)


def to_torch(array: Array) -> torch.Tensor:
    """Give an array to torch; both share the memory.

    Example:
        >>> to_torch(np.ones(2, BFLOAT16))
        tensor([1., 1.], dtype=torch.bfloat16)
    """
    import torch

    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> Array:
    """Give a tensor to numpy; both share the memory, unless the tensor is on another device than the CPU.

    Example:
        >>> import torch
        >>> to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == BFLOAT16
        True
    """
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(BFLOAT16)
    array: Array = tensor.numpy()
    return array


def numpy_dtype(dtype: torch.dtype) -> DType:
    """Translate a dtype of torch's.

    Raises:
        CheckpointError: if numpy has none like it.
    """
    try:
        return np.dtype(str(dtype).removeprefix("torch."))
    except TypeError as error:
        raise CheckpointError(f"dtype {dtype} is known to torch alone; expected plain numbers") from error
