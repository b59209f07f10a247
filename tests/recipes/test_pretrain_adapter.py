"""What an earlier model passes on to the adapter that is pretrained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from mu_llama.model.adapter import AudioAdapter
from mu_llama.model.config import AdapterConfig
from recipes.mini.examples import read_labels
from recipes.mini.pretrain_adapter import carry_over


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
