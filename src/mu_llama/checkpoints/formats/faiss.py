"""Read a faiss `IndexFlatIP` file, the format of the published knn.index, without faiss."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np

from mu_llama.arrays import FLOAT32, Array
from mu_llama.checkpoints.formats.format import Detection, FileHead, Format
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

# Four-letter code, width int32, count int64, two unused int64, trained flag byte, metric int32; then the
# number of floats as int64 and the floats themselves (faiss, index_write.cpp).
_HEADER = struct.Struct("<4siqqqBi")
_FLAT_CODES = (b"IxFI", b"IxFl")
_INNER_PRODUCT = 0
# Code of a flat, inverted or graph index, width and count: what every kind of index begins with.
_START = struct.Struct("<4siq")
_CODE = re.compile(rb"I[xwH][A-Za-z0-9]{2}")
_MAX_WIDTH, _MAX_VECTORS = 1 << 16, 1 << 40


def _recognise(file: FileHead) -> Detection | None:
    if len(file.head) < _START.size:
        return None
    code, width, count = _START.unpack_from(file.head)
    if _CODE.fullmatch(code) is None or not 0 < width <= _MAX_WIDTH or not 0 <= count <= _MAX_VECTORS:
        return None
    return Detection(file.path, KIND, f"{count} vectors of width {width}, type {code.decode()}")


KIND = "faiss index"
FORMAT = Format(KIND, "a faiss index", role="knn_index", recognise_file=_recognise, suffix=".index")


def read_faiss_flat(path: Path) -> Array:
    """Read all vectors.

    Returns:
        Float32 array (N, D).

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
    return vectors.astype(FLOAT32)
