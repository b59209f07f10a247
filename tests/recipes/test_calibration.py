"""The temperature of a held-out soundfont, and the labels of which the adapter is certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mu_llama.model.adapter import AudioAdapter
from mu_llama.model.config import AdapterConfig
from recipes.mini.calibration import (
    DEFAULT_TEMPERATURE,
    HELD_OUT_FONT,
    MIN_CLIPS,
    apply_temperature,
    by_font,
    certain_words,
    fit_temperature,
    select,
)
from recipes.mini.examples import Examples, read_labels


def _adapter(words: Sequence[str]) -> AudioAdapter:
    sizes = AdapterConfig(
        num_encoder_layers=1, encoder_width=4, hidden_size=8, num_conditioned_layers=0, num_heads=2,
        num_audio_tokens=len(words) + 1, num_choices=1, bridge_width=8, num_blocks=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return AudioAdapter(sizes)


def _examples(adapter: AudioAdapter, *, flipped: float) -> Examples:
    """Answers as the adapter reads them, but for a share that is the other way round."""
    features = torch.randn(600, 1, 4)
    answers = (read_labels(adapter, features) > 0).float()
    answers = torch.where(torch.rand_like(answers) < flipped, 1 - answers, answers)
    return Examples(features, answers, ["a"] * 600, ["drums", "piano"], ["a"] * 600)


def test_an_adapter_that_is_often_wrong_gets_a_higher_temperature() -> None:
    adapter = _adapter(("drums", "piano"))
    assert adapter.tokens is not None
    with torch.no_grad():
        adapter.tokens.reading.weight.mul_(20)
    sure, unsure = (fit_temperature(adapter, _examples(adapter, flipped=share)) for share in (0.0, 0.3))
    assert sure < unsure


def test_a_soundfont_is_held_out_and_too_few_of_its_clips_give_the_default_temperature() -> None:
    adapter = _adapter(("drums", "piano"))
    examples = replace(_examples(adapter, flipped=0.0), ids=[f"{row % 3}" for row in range(600)])
    trained_on, held_out = by_font(examples, {"0": "TimGM6mb", "1": None, "2": HELD_OUT_FONT})
    assert (set(trained_on.ids), set(held_out.ids)) == ({"0", "1"}, {"2"})
    assert torch.equal(held_out.features, examples.features[2::3])
    assert fit_temperature(adapter, select(held_out, range(MIN_CLIPS - 1))) == DEFAULT_TEMPERATURE
    assert fit_temperature(adapter, held_out) == 1.0
    assert by_font(trained_on, {"0": "TimGM6mb", "1": None})[1].ids == []


def test_a_temperature_changes_probabilities_and_not_which_side_they_are_on() -> None:
    adapter = _adapter(("drums", "piano"))
    assert adapter.tokens is not None
    with torch.no_grad():
        adapter.tokens.reading.weight.mul_(20)
        adapter.tokens.present.fill_(1.0)
        adapter.tokens.absent.fill_(-1.0)
    examples = _examples(adapter, flipped=0.0)
    before, tokens = read_labels(adapter, examples.features).clone(), adapter.tokens(adapter(examples.features)).clone()
    apply_temperature(adapter, 3.0, examples)
    after = read_labels(adapter, examples.features)
    assert torch.allclose(after, before / 3.0, atol=1e-5)
    assert torch.equal(after > 0, before > 0)
    middling = before.abs().median()
    usual = (before.abs() - middling).abs() < 0.1 * middling
    moved = (adapter.tokens(adapter(examples.features)) - tokens).abs()
    assert float(moved[:, :2][usual].detach().max()) < 0.1, "usual tokens stay"
    assert torch.allclose(moved[:, 2:], torch.zeros(1), atol=1e-5), "and so does which is likeliest"


def test_what_is_doubted_is_not_certain() -> None:
    labels = {"piano": True, "harp": True, "drums": False, "singing": False, "flute": False}
    probabilities = {"piano": 0.9, "harp": 0.6, "drums": 0.05, "singing": 0.4, "flute": 0.0}
    assert certain_words(labels, probabilities) == ["piano", "no drums"]
