"""Blocks of 8 and 4 bits; that onnxruntime reads them so is tested with the graph."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mu_llama.engine.onnx.quantize import BlockFormat, dequantize, quantize
from mu_llama.errors import ConfigError


def matrix(seed: int, num_rows: int, num_columns: int, scale: float) -> NDArray[np.float32]:
    source = np.random.default_rng(seed)
    return (source.standard_normal((num_rows, num_columns)) * scale).astype(np.float32)


@given(
    seed=st.integers(0, 999), num_rows=st.integers(1, 9), num_columns=st.integers(1, 150), bits=st.sampled_from([8, 4]),
    block_size=st.sampled_from([16, 32, 128]), symmetric=st.booleans(), scale=st.sampled_from([1e-20, 0.02, 1e10]),
    shift=st.sampled_from([0.0, 3.0, -3.0]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_weights_come_back_within_half_a_step(
    seed: int, num_rows: int, num_columns: int, bits: int, block_size: int, symmetric: bool, scale: float, shift: float
) -> None:
    block_format = BlockFormat(bits, block_size, symmetric)  # type: ignore[arg-type]
    weight = matrix(seed, num_rows, num_columns, scale) + np.float32(shift * scale)
    rows = quantize(weight, block_format)
    (num_blocks, num_bytes), num_scales, zero_bytes = block_format.row_shapes(num_columns)
    assert rows.values.shape == (num_rows, num_blocks, num_bytes)
    assert rows.scales.shape == (num_rows, num_scales)
    assert (rows.zero_points is None) == symmetric
    assert rows.zero_points is None or rows.zero_points.shape == (num_rows, zero_bytes)
    came = dequantize(rows, block_format, num_columns=num_columns)
    steps = np.repeat(np.abs(rows.scales), block_size, axis=1)[:, :num_columns]
    # A symmetric range reaches one step less far on one side; a zero point is rounded to a whole step.
    assert np.all(np.abs(came - weight) <= steps * (1.01 if symmetric or shift else 1.0))
    if symmetric:
        largest = np.abs(weight).max(axis=1)
        np.testing.assert_allclose(np.abs(came).max(axis=1), largest, rtol=2e-2 if bits == 8 else 0.15)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
def test_zeros_stay_zeros(bits: int, symmetric: bool) -> None:
    block_format = BlockFormat(bits, 16, symmetric)  # type: ignore[arg-type]
    weight = np.zeros((3, 40), np.float32)
    weight[1, 20] = 1
    came = dequantize(quantize(weight, block_format), block_format, num_columns=40)
    np.testing.assert_allclose(came, weight, atol=1e-6)


def test_the_layout_of_4_bits() -> None:
    weight = np.array([[-8, 7, 0, 1, *[0] * 12]], np.float32)
    rows = quantize(weight, BlockFormat(4, 16))
    assert rows.scales.tolist() == [[1]]
    assert rows.values[0, 0, :3].tolist() == [0 | 15 << 4, 8 | 9 << 4, 8 | 8 << 4]  # the first one in the lower half
    asymmetric = quantize(np.array([[0, 15] * 8 + [-15, 0] * 8 + [-5, 10] * 8], np.float32), BlockFormat(4, 16, False))
    assert asymmetric.scales.tolist() == [[1, 1, 1]]
    assert asymmetric.zero_points is not None
    assert asymmetric.zero_points.tolist() == [[0 | 15 << 4, 5]]


def test_narrow_weights_are_quantized_as_their_values() -> None:
    weight = matrix(0, 500, 300, 0.02).astype(ml_dtypes.bfloat16)
    one, other = quantize(weight, BlockFormat()), quantize(weight.astype(np.float32), BlockFormat())
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.scales, other.scales)


def test_the_weight_is_left_as_it_is() -> None:
    weight = matrix(0, 4, 32, 1)
    before = weight.copy()
    quantize(weight, BlockFormat())
    np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize(
    ("bits", "block_size", "message"), [(3, 32, "bits is 3"), (8, 24, "block_size is 24"), (4, 8, "block_size is 8")]
)
def test_other_formats_are_refused(bits: int, block_size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BlockFormat(bits, block_size)  # type: ignore[arg-type]
