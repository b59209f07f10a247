"""MERT equals the reference: its input, every hidden state, both layer-norm variants, both kinds of files."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch

from mu_llama.audio.windows import PUBLISHED, ListenOptions, stream_windows
from mu_llama.encoders.mert.encoder import MertEncoder, load_mert, load_mert_from_tensors, normalise
from mu_llama.encoders.pooling import encode_track

INPUT_ATOL = 5e-5
STATES_ATOL = 2e-4
"""Both from the golden README's table of tolerances."""

WINDOW = r"mert/(?P<audio>\w+)/window(?P<index>\d+)/"
VARIANT = r"mert_variant_(?P<variant>\w+)/(?P<audio>\w+)/"


@pytest.fixture(scope="module")
def encoder(golden: Any) -> MertEncoder:
    return load_mert(golden.path / "mert", device=golden.device)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, *, atol: float) -> None:
    torch.testing.assert_close(actual.cpu(), expected.cpu(), rtol=0, atol=atol)


def test_sizes_are_those_of_the_set(golden: Any, encoder: MertEncoder) -> None:
    assert encoder.num_layers == golden.config["n_hidden_states"]
    assert encoder.width == golden.config["mert_hidden"]
    assert encoder.rate_hz == 24000


@pytest.mark.golden_keys(WINDOW + "input_values_first_256")
def test_input_values(golden: Any, golden_key: re.Match[str]) -> None:
    index = int(golden_key["index"])
    values = normalise(golden.window(golden_key["audio"], index).samples)
    expected = golden.expected[golden_key[0]]
    assert_close(torch.from_numpy(values[: len(expected)]), expected, atol=INPUT_ATOL)
    total = golden.json["audio"][golden_key["audio"]]["input_values_sum_abs"][index]
    assert np.abs(values).sum(dtype=np.float64) == pytest.approx(total, rel=1e-5)


@pytest.mark.golden_keys(WINDOW + "hidden_means")
def test_hidden_means(golden: Any, encoder: MertEncoder, golden_key: re.Match[str]) -> None:
    means = encoder.encode(golden.window(golden_key["audio"], int(golden_key["index"])))
    assert_close(torch.from_numpy(means), golden.expected[golden_key[0]], atol=STATES_ATOL * golden.slack)


@pytest.mark.golden_keys(r"mert/(?P<audio>(?!silence|edge_|\w+_x\d)\w+)/window0/hidden_means")
def test_means_of_a_streamed_file(golden: Any, encoder: MertEncoder, golden_key: re.Match[str]) -> None:
    path = golden.path / f"audio_{golden_key['audio']}.wav"
    windows = list(stream_windows(path, options=ListenOptions(window=PUBLISHED), rate_hz=encoder.rate_hz))
    lengths = [window.waveform.samples.size for window in windows]
    assert lengths == golden.json["audio"][golden_key["audio"]]["window_lengths"]
    means = encode_track(encoder, windows[:1], weighting="equal").values
    assert_close(torch.from_numpy(means), golden.expected[golden_key[0]], atol=STATES_ATOL * golden.slack)


@pytest.mark.golden_keys(r"mert/(?P<audio>\w+)/hidden_states_(?P<end>first|last)_(?P<num>\d+)_frames")
def test_hidden_states(golden: Any, encoder: MertEncoder, golden_key: re.Match[str]) -> None:
    states = torch.stack(encoder.hidden_states(golden.window(golden_key["audio"], 0)))
    assert states.shape[1] == golden.json["audio"][golden_key["audio"]]["mert_frames"][0]
    num = int(golden_key["num"])
    part = states[:, :num] if golden_key["end"] == "first" else states[:, -num:]
    assert_close(part, golden.expected[golden_key[0]], atol=STATES_ATOL * golden.slack)


@pytest.mark.golden_keys(VARIANT + "hidden_means")
def test_variant_means(golden: Any, golden_key: re.Match[str]) -> None:
    variant = load_mert(golden.path / f"mert_variant_{golden_key['variant']}", device=golden.device)
    means = variant.encode(golden.window(golden_key["audio"], 0))
    assert_close(torch.from_numpy(means), golden.expected[golden_key[0]], atol=STATES_ATOL * golden.slack)


@pytest.mark.golden_keys(VARIANT + r"hidden_states_first_(?P<num>\d+)_frames")
def test_variant_states(golden: Any, golden_key: re.Match[str]) -> None:
    variant = load_mert(golden.path / f"mert_variant_{golden_key['variant']}", device=golden.device)
    states = torch.stack(variant.hidden_states(golden.window(golden_key["audio"], 0)))
    assert_close(states[:, : int(golden_key["num"])], golden.expected[golden_key[0]], atol=STATES_ATOL * golden.slack)


@pytest.mark.golden_keys(r"mert/(?P<audio>edge_\w+)/window0/hidden_means")
def test_one_frame_keeps_its_time_axis(golden: Any, encoder: MertEncoder, golden_key: re.Match[str]) -> None:
    """The reference drops the axis and then averages over layers: its `encode/edge_*/agg` isn't copied."""
    window = golden.window(golden_key["audio"], 0)
    states = encoder.hidden_states(window)
    assert {tuple(state.shape) for state in states} == {(1, encoder.width)}
    means = encoder.encode(window)
    assert np.isfinite(means).all()
    assert_close(torch.from_numpy(means), torch.cat(states), atol=0)


def test_a_checkpoint_holds_the_same_mert(golden: Any, encoder: MertEncoder) -> None:
    prefix = "mert_model."
    checkpoint = torch.load(golden.path / "checkpoint_finetune.pth", weights_only=True)["model"]
    tensors = {name.removeprefix(prefix): t for name, t in checkpoint.items() if name.startswith(prefix)}
    config = json.loads((golden.path / "mert" / "config.json").read_text())
    assert load_mert_from_tensors(tensors, config).fingerprint == encoder.fingerprint
