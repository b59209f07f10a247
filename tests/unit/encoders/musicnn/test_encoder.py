"""Work spread over threads gives what a loop gives, and leaves torch's setting alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mu_llama.encoders.musicnn.encoder import map_on_own_threads


@pytest.fixture(params=[1, 3], autouse=True)
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_are_in_order_and_the_setting_survives(num_threads: int) -> None:
    items = [torch.full((300, 300), float(value)) for value in range(10)]
    sums = map_on_own_threads(lambda item: float((item @ item)[0, 0]), items)
    assert sums == [300.0 * value**2 for value in range(10)]
    assert torch.get_num_threads() == num_threads


def test_each_piece_stays_on_one_thread_in_inference_mode() -> None:
    def look(_: int) -> tuple[int, bool]:
        return torch.get_num_threads(), torch.is_inference_mode_enabled()

    seen = map_on_own_threads(look, [0, 1, 2])
    assert seen == [(1, True)] * 3


def test_an_error_comes_through_and_the_setting_survives(num_threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        map_on_own_threads(lambda item: 1 / item, [1, 0])
    assert torch.get_num_threads() == num_threads
