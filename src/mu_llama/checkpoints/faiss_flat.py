"""Read a faiss `IndexFlatIP` file, the format of the published knn.index, without faiss."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

# Four-letter code, width int32, count int64, two unused int64, trained flag byte, metric int32; then the
# number of floats as int64 and the floats themselves (faiss, index_write.cpp).
_HEADER = struct.Struct("<4siqqqBi")
_FLAT_CODES = (b"IxFI", b"IxFl")
_INNER_PRODUCT = 0


def read_faiss_flat(path: Path) -> Tensor:
    """Read all vectors.

    Returns:
        Float32 tensor (N, D).

    Raises:
        CheckpointError: if the file is missing, cut short, or another kind of index.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a faiss index: pass the path of knn.index")
    refuse_lfs_pointer(path)
    data = path.read_bytes()
    if len(data) < _HEADER.size + 8:
        raise CheckpointError(f"{path}: only {len(data)} bytes; expected a faiss index: get it again")
    code, width, count, _, _, _, metric = _HEADER.unpack_from(data)
    if code not in _FLAT_CODES or metric != _INNER_PRODUCT:
        raise CheckpointError(
            f"{path}: index type {code!r}, metric {metric}; expected a flat inner-product index (IxFI)"
        )
    (num_floats,) = struct.unpack_from("<q", data, _HEADER.size)
    start = _HEADER.size + 8
    if width < 1 or count < 1 or num_floats != width * count or len(data) - start != 4 * num_floats:
        raise CheckpointError(f"{path}: cut short or empty ({count} vectors of {width} announced); get it again")
    vectors = np.frombuffer(data, dtype="<f4", count=num_floats, offset=start).reshape(count, width)
    return torch.from_numpy(vectors.astype(np.float32))
