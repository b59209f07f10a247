"""The card claims what the folder holds, and shows no path around it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mu_llama.checkpoints.formats.native import ModelConfig
from mu_llama.checkpoints.load import find_parts
from mu_llama.checkpoints.model_card import Provenance, write_card

SET_A = Path(__file__).parents[2] / "golden" / "set_a"


@pytest.mark.parametrize(
    ("llama", "encoder", "says", "says_not"),
    [
        (
            {"packaged": "tiny"},
            {"kind": "musicnn"},
            ["`tiny`, which mu-llama brings", "inside the package"],
            ["`llama/`"],
        ),
        (
            {"folder": "/private/place/LLaMA"},
            {"kind": "mert", "path": "/private/place/mert"},
            ["`LLaMA`, outside of this folder", "`mert`, outside of this folder"],
            ["private", "`llama/`", "opens with transformers"],
        ),
        ({"folder": "llama"}, {"kind": "mert", "path": "encoder"}, ["| `llama/` |", "| `encoder` |"], ["outside"]),
        (
            {"folder": "x"},
            {"kind": "mert", "path": "owner/name"},
            ["`owner/name`, outside of this folder"],
            ["`llama/`"],
        ),
    ],
)
def test_parts_are_where_the_card_says(
    llama: dict[str, str], encoder: dict[str, Any], says: list[str], says_not: list[str], tmp_path: Path
) -> None:
    parts = find_parts(
        SET_A / "checkpoint_finetune.pth", llama=SET_A / "llama", encoder=SET_A / "mert", home=Path("unused")
    )
    for name in ("llama", "encoder"):
        (tmp_path / name).mkdir()
    config = ModelConfig("m", parts.template.name, parts.adapter_config, encoder, llama)
    card = tmp_path / "MODEL_CARD.md"
    write_card(card, parts, config, Provenance((), False, "as stored"))
    text = card.read_text()
    assert all(words in text for words in says)
    assert not any(words in text for words in says_not)
    assert "| `lora.safetensors` |" in text
    write_card(card, dataclasses.replace(parts, tuning={}), config, Provenance((), False, "as stored"))
    assert "lora.safetensors" not in card.read_text()
    assert "merged" not in card.read_text()
    write_card(card, parts, config, Provenance((), True, "as stored"))
    assert "merged into the LLaMA" in card.read_text()
