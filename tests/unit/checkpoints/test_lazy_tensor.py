"""Tensors on disk: read, glued and converted as torch does, in memory that begins where a cache line begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mu_llama.arrays import BFLOAT16, FLOAT16, FLOAT32, Array, DType, empty, numpy_dtype, to_numpy, to_torch
from mu_llama.checkpoints import lazy_tensor
from mu_llama.checkpoints.lazy_tensor import concatenate, file_tensor, in_memory, in_pieces, zeros
from mu_llama.errors import CheckpointError

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def every_number(dtype: torch.dtype) -> torch.Tensor:
    """All numbers of a half-precision dtype, or as many that lie between those: NaN, infinities, subnormals too."""
    patterns = torch.arange(1 << 16, dtype=torch.int32)
    if dtype.itemsize == 2:
        return patterns.to(torch.uint16).view(dtype)
    spread = ((patterns << 16) | (patterns * 40503 & 0xFFFF)).view(torch.float32)
    return spread.to(dtype)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("rows", [1, 256, 65536])
def test_conversion_is_torchs_bit_for_bit(
    source: torch.dtype, target: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_tensor, "_PIECE_ELEMENTS", 3000)
    value = every_number(source).reshape(rows, -1)
    expected = value.float().to(target)
    came = to_torch(in_pieces(to_numpy(value.clone()), numpy_dtype(target)))
    assert came.dtype == target
    assert torch.equal(came.isnan(), expected.isnan())
    assert torch.equal(came[~came.isnan()], expected[~expected.isnan()])


def test_a_change_is_given_float32_and_which_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_tensor, "_PIECE_ELEMENTS", 4)
    value, factors = np.arange(14, dtype=BFLOAT16).reshape(7, 2), np.arange(7, dtype=FLOAT32)[:, None]
    seen: list[DType] = []

    def change(rows: Array, which: slice) -> Array:
        seen.append(rows.dtype)
        return rows * factors[which]

    assert (in_pieces(value.copy(), BFLOAT16, change).astype(FLOAT32) == value.astype(FLOAT32) * factors).all()
    assert set(seen) == {FLOAT32}
    assert len(seen) == 4


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_shapes_stay(shape: tuple[int, ...]) -> None:
    stored = in_memory(np.ones(shape, FLOAT16)).to(BFLOAT16)
    assert (stored.shape, stored.read().shape, stored.read().dtype) == (shape, shape, BFLOAT16)
    whole = in_memory(np.ones(shape, np.int32)).to(FLOAT32)
    assert (whole.read().shape, whole.read().dtype) == (shape, FLOAT32)


def test_reading_gives_fresh_memory(tmp_path: Path) -> None:
    values = np.arange(6, dtype=BFLOAT16)
    (tmp_path / "file").write_bytes(b"abc" + values.tobytes())
    from_file = file_tensor(tmp_path / "file", offset_bytes=3, shape=(2, 3), dtype=BFLOAT16)
    for stored in (in_memory(values), from_file, zeros((3,), FLOAT32)):
        first, before = stored.read(), stored.read()
        first += 1
        assert (stored.read() == before).all()
    assert from_file.read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert from_file.read().__array_interface__["data"][0] % 64 == 0
    across = file_tensor(tmp_path / "file", offset_bytes=3, shape=(3, 2), dtype=BFLOAT16, stride=(1, 3))
    assert across.read().tolist() == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(CheckpointError, match="ends too early"):
        file_tensor(tmp_path / "file", offset_bytes=5, shape=(6,), dtype=BFLOAT16).read()
    with pytest.raises(CheckpointError, match="can't be read"):
        file_tensor(tmp_path / "gone", offset_bytes=0, shape=(6,), dtype=BFLOAT16).read()


def test_pieces_are_glued() -> None:
    left, right = in_memory(np.zeros((2, 1), BFLOAT16)), in_memory(np.ones((2, 2), BFLOAT16))
    glued = concatenate([left, right], axis=-1)
    assert (glued.shape, glued.dtype) == ((2, 3), BFLOAT16)
    assert (glued.read().dtype, glued.read().tolist()) == (BFLOAT16, [[0, 1, 1], [0, 1, 1]])


def test_torch_and_numpy_share_memory() -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.int64, torch.bool):
        tensor = torch.ones(3, 2, dtype=dtype).T
        array = to_numpy(tensor)
        assert (array.shape, array.dtype) == ((2, 3), numpy_dtype(dtype))
        array[0, 0] = 0
        assert tensor[0, 0] == 0
        assert to_torch(array).data_ptr() == tensor.data_ptr()
        assert torch.equal(to_torch(array), tensor)
    assert to_torch(np.ones((), BFLOAT16)).item() == 1
    with pytest.raises(CheckpointError, match=r"torch\.qint8 is known to torch alone"):
        numpy_dtype(torch.qint8)
    assert empty((0, 3), BFLOAT16).shape == (0, 3)
