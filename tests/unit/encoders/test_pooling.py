"""encode_track: a weighted mean over streamed windows."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from mu_llama.audio.waveform import Waveform
from mu_llama.audio.windows import Window
from mu_llama.encoders.pooling import encode_track
from mu_llama.errors import AudioError


class MeanEncoder:
    """Gives the mean sample as its one feature."""

    name = "mean"
    fingerprint = "0"
    rate_hz = 10
    num_layers = 1
    width = 1

    def encode(self, window: Waveform) -> npt.NDArray[np.float32]:
        return np.array([[window.samples.mean()]], np.float32)


def make_window(start_s: float, end_s: float, value: float) -> Window:
    samples = np.full(round((end_s - start_s) * 10), value, dtype=np.float32)
    return Window(start_s, end_s, Waveform(samples, 10))


def test_windows_weigh_by_duration_or_equally() -> None:
    windows = [make_window(0, 3, 1.0), make_window(3, 4, 5.0)]
    by_duration = encode_track(MeanEncoder(), windows)
    assert by_duration.values.tolist() == [[2.0]]
    assert by_duration.values.dtype == np.float32
    assert by_duration.spans == ((0, 3), (3, 4))
    assert by_duration.duration_s == 4
    equal = encode_track(MeanEncoder(), windows, weighting="equal", duration_s=9.5)
    assert equal.values.tolist() == [[3.0]]
    assert equal.duration_s == 9.5


@pytest.mark.parametrize("end_s", [1, 7, 13.7])
def test_a_single_window_is_not_changed_by_averaging(end_s: float) -> None:
    window = make_window(0, end_s, 0.1)
    assert np.array_equal(encode_track(MeanEncoder(), [window]).values, MeanEncoder().encode(window.waveform))


def test_one_window_is_held_at_a_time() -> None:
    alive: list[weakref.ref[Window]] = []

    def stream() -> Iterator[Window]:
        for second in range(4):
            gc.collect()
            assert not [ref for ref in alive if ref() is not None]
            window = make_window(second, second + 1, 0.0)
            alive.append(weakref.ref(window))
            yield window
            del window

    encode_track(MeanEncoder(), stream())
    assert len(alive) == 4


def test_no_windows_are_an_error() -> None:
    with pytest.raises(AudioError, match="no windows to encode"):
        encode_track(MeanEncoder(), [])
