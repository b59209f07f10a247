"""What recipes/mini teaches the adapter: words that hold, that don't, and weights that even them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mu_llama.labels.track import Track
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
from recipes.mini.examples import Examples, choice_losses, choice_weights, read_labels, weights_of
from recipes.mini.labels import GROUPS, labels_of
from recipes.mini.pretrain_adapter import carry_over

WHOLE = {"instrument": ("others",)}


def test_a_solo_denies_what_is_like_it_and_a_band_does_not() -> None:
    solo = labels_of(Track("a", tags={"instrument": ("violin",), "ensemble": ("solo",)}, absent=WHOLE))
    band = labels_of(Track("a", tags={"instrument": ("violin", "piano"), "ensemble": ("band",)}, absent=WHOLE))
    assert solo["violin"]
    assert solo["strings"]
    assert not solo["cello"]
    assert solo["solo"]
    assert not solo["band"]
    assert "cello" not in band
    assert not band["trumpet"]
    assert band["piano"]


def test_a_choir_in_a_band_is_there_and_a_string_orchestra_is_an_orchestra() -> None:
    assert labels_of(Track("a", tags={"instrument": ("choir", "piano"), "ensemble": ("band",)}))["choir"]
    strings = labels_of(Track("a", tags={"ensemble": ("string orchestra",)}))
    assert strings["orchestra"]
    assert strings["string orchestra"]
    assert not strings["solo"]


def test_what_is_not_known_is_left_out() -> None:
    found = labels_of(Track("a", guesses={"genre": ("jazz",)}, doubts={"genre": ("metal",)}))
    assert found["jazz"]
    assert not found["metal"]
    assert not {"folk", "drums", "piano", "calm", "singing"} & found.keys()


def test_speech_has_no_labels_of_music() -> None:
    assert labels_of(Track("a", tags={"sound": ("speech",)})) == {"music": False, "speech": True, "noise": False}


def test_yes_and_no_weigh_the_same_within_each_source() -> None:
    answers = torch.tensor([[1.0], [0.0], [0.0], [0.0], [1.0], [torch.nan]])
    sources = ["a", "a", "a", "a", "b", "b"]
    weights = weights_of(Examples(torch.zeros(6, 1, 1), answers, sources, ["drums"]))[:, 0]
    assert float(weights[0]) == pytest.approx(float(weights[1:4].sum()))
    assert 0 < float(weights[4]) < 0.1
    assert float(weights[5]) == 0


def test_music_and_noise_are_evened_over_all() -> None:
    answers = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    weights = weights_of(Examples(torch.zeros(4, 1, 1), answers, ["a", "b", "c", "n"], ["music"]))[:, 0]
    assert float(weights[:3].sum()) == pytest.approx(float(weights[3]))


def test_no_word_stands_for_two_things() -> None:
    words = [word for name, group in GROUPS.items() if name != "ensemble" for word in group]
    assert len(words) == len(set(words))


def _adapter(words: Sequence[str]) -> AudioAdapter:
    """An adapter of one number with a token a word; like words have like names."""
    adapter = AudioAdapter(
        AdapterConfig(
            num_encoder_layers=1, encoder_width=1, hidden_size=8, num_conditioned_layers=0, num_heads=1,
            num_audio_tokens=len(words) + 1, num_choices=1, bridge_width=4, num_blocks=1,
        )
    )  # fmt: skip
    assert adapter.tokens is not None
    with torch.no_grad():
        for place, word in enumerate(words):
            adapter.tokens.names[place] = torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, word))))
    return adapter


def _save(adapter: AudioAdapter, folder: Path) -> None:
    tensors = {f"adapter.{name}": value.contiguous() for name, value in adapter.state_dict().items()}
    save_file(tensors, folder / "adapter.safetensors")
    save_file({"a.lora_A": torch.ones(1)}, folder / "lora.safetensors")


def test_an_earlier_model_lends_its_names_of_the_same_words(tmp_path: Path) -> None:
    earlier, now = _adapter("abc"), _adapter("cad")
    assert earlier.tokens is not None
    assert now.tokens is not None
    with torch.no_grad():
        earlier.tokens.names.mul_(1.5)
        earlier.tokens.present.fill_(3.0)
    own = now.tokens.names.detach().clone()
    _save(earlier, tmp_path)
    tuning = carry_over(now, "cad", tmp_path)
    assert set(tuning) == {"a.lora_A"}
    assert torch.equal(now.tokens.names[0], earlier.tokens.names[2])
    assert torch.equal(now.tokens.names[1], earlier.tokens.names[0])
    assert torch.equal(now.tokens.names[2], own[2])
    assert torch.equal(now.tokens.present, earlier.tokens.present)
    features = torch.randn(5, 1, 1)
    assert torch.equal(read_labels(now, features)[:, :2], read_labels(earlier, features)[:, [2, 0]])
    assert torch.equal(now.projection.weight, earlier.projection.weight)


def test_genres_are_learned_anew(tmp_path: Path) -> None:
    words = ("piano", "ragtime")
    earlier, now = _adapter(words), _adapter(words)
    assert earlier.tokens is not None
    assert now.tokens is not None
    own = now.tokens.reading.weight.detach().clone()
    _save(earlier, tmp_path)
    carry_over(now, words, tmp_path)
    assert torch.equal(now.tokens.reading.weight[0], earlier.tokens.reading.weight[0])
    assert torch.equal(now.tokens.reading.weight[1], own[1])
    assert not torch.equal(own[1], earlier.tokens.reading.weight[1])


def test_choosing_counts_names_that_hold_among_those_known() -> None:
    unknown = float("nan")
    logits = torch.tensor([[2.0, 0.0, 9.0], [1.0, 1.0, 0.0], [5.0, 5.0, 5.0]], requires_grad=True)
    answers = torch.tensor([[1.0, 0.0, unknown], [1.0, 1.0, 0.0], [0.0, unknown, 0.0]])
    losses = choice_losses(logits, answers)
    losses.sum().backward()
    several = torch.log(2 * torch.tensor(1.0).exp() + 1) - torch.log(2 * torch.tensor(1.0).exp())
    torch.testing.assert_close(losses, torch.tensor([torch.tensor(-2.0).exp().log1p().item(), several.item(), 0.0]))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[2].any()


def test_sets_of_names_that_hold_count_the_same_within_a_kind_of_music() -> None:
    answers = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    examples = Examples(torch.zeros(6, 1, 1), answers, ["a"] * 5 + ["b"], ["folk", "rock"])
    weights = choice_weights(examples, torch.tensor([True, True]))
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0, 0.0, 1.0]))


def _ears(words: Sequence[str]) -> AudioAdapter:
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
    adapter = _ears(("drums", "piano"))
    assert adapter.tokens is not None
    with torch.no_grad():
        adapter.tokens.reading.weight.mul_(20)
    sure, unsure = (fit_temperature(adapter, _examples(adapter, flipped=share)) for share in (0.0, 0.3))
    assert sure < unsure


def test_a_soundfont_is_kept_from_the_adapter_and_too_few_of_its_clips_measure_nothing() -> None:
    adapter = _ears(("drums", "piano"))
    examples = replace(_examples(adapter, flipped=0.0), ids=[f"{row % 3}" for row in range(600)])
    taught, unheard = by_font(examples, {"0": "TimGM6mb", "1": None, "2": HELD_OUT_FONT})
    assert (set(taught.ids), set(unheard.ids)) == ({"0", "1"}, {"2"})
    assert torch.equal(unheard.features, examples.features[2::3])
    assert fit_temperature(adapter, select(unheard, range(MIN_CLIPS - 1))) == DEFAULT_TEMPERATURE
    assert fit_temperature(adapter, unheard) == 1.0
    assert by_font(taught, {"0": "TimGM6mb", "1": None})[1].ids == []


def test_softening_keeps_what_is_read_and_makes_it_less_sure() -> None:
    adapter = _ears(("drums", "piano"))
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


def test_what_is_doubted_is_not_clear() -> None:
    labels = {"piano": True, "harp": True, "drums": False, "singing": False, "flute": False}
    heard = {"piano": 0.9, "harp": 0.6, "drums": 0.05, "singing": 0.4, "flute": 0.0}
    assert certain_words(labels, heard) == ["piano", "no drums"]
