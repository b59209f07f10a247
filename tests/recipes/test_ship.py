"""What recipes/mini ships: half precision, and the mean of two trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mu_llama
from recipes.mini.ship import averaged, ship


def test_the_mean_of_two_is_taken_in_float32(tmp_path: Path) -> None:
    one, other = torch.tensor([1.0, 65504.0]).half(), torch.tensor([3.0, 65504.0]).half()
    for name, tensor in (("one", one), ("other", other)):
        save_file({"lora": tensor}, tmp_path / f"{name}.safetensors")
    mean = averaged(tmp_path / "one.safetensors", tmp_path / "other.safetensors")["lora"].read()
    assert mean.dtype == np.float16
    assert mean.tolist() == [2.0, 65504.0]
    parts = averaged(tmp_path / "one.safetensors", tmp_path / "other.safetensors", 0.75)["lora"].read()
    assert parts.tolist() == [1.5, 65504.0]


def test_loras_of_other_ranks_have_no_mean(tmp_path: Path) -> None:
    for rank in (2, 4):
        save_file({"lora": torch.zeros(rank, 3)}, tmp_path / f"{rank}.safetensors")
    with pytest.raises(ValueError, match="other names or shapes"):
        averaged(tmp_path / "2.safetensors", tmp_path / "4.safetensors")


def test_loras_of_other_adapters_have_no_mean(tmp_path: Path) -> None:
    embedded = Path(mu_llama.__file__).parent / "embedded" / "mini"
    ship(embedded, tmp_path / "same", mean_with=embedded)
    assert load_file(tmp_path / "same" / "lora.safetensors").keys() == load_file(embedded / "lora.safetensors").keys()
    adapter = load_file(tmp_path / "same" / "adapter.safetensors")
    first = next(iter(adapter))
    save_file({**adapter, first: adapter[first] + 1}, tmp_path / "same" / "adapter.safetensors")
    with pytest.raises(ValueError, match="other adapters"):
        ship(embedded, tmp_path / "other", mean_with=tmp_path / "same")
    assert not (tmp_path / "other").exists()
