"""Our model folder: what is written opens again, LoRA merges as peft does, misfits are named."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from mu_llama.checkpoints.native import (
    ModelConfig,
    assemble_native,
    merge_lora,
    read_model_config,
    write_model_folder,
)
from mu_llama.errors import CheckpointError
from mu_llama.model.mu_llama import MuLlama
from tests.model.test_conditioning import make_model

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def tuned() -> MuLlama:
    """A model with a random LoRA beside its LLaMA, as training leaves it."""
    model = make_model()
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, lora_alpha=4, target_modules=LINEARS), model.llama)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def write(model: MuLlama, folder: Path) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    state = model.state_dict()
    adapter = {name: value for name, value in state.items() if not name.startswith("llama.")}
    lora = {
        name.removeprefix("llama.").replace(".default", ""): value for name, value in state.items() if "lora_" in name
    }
    base = {
        name.removeprefix("llama.").replace(".base_layer", ""): value
        for name, value in state.items()
        if name.startswith("llama.") and "lora_" not in name
    }
    config = ModelConfig(
        name="tiny",
        prompt="alpaca",
        adapter=model.adapter.config,
        encoder={"kind": "musicnn"},
        llama={"folder": "llama"},
    )
    write_model_folder(folder, config, adapter=adapter, lora=lora)
    return config, base


@torch.inference_mode()
def test_written_and_merged_equals_peft(tuned: MuLlama, tmp_path: Path) -> None:
    config, base = write(tuned, tmp_path)
    assert read_model_config(tmp_path) == config
    opened = assemble_native(tmp_path, config, (tuned.llama.config, base), dtype=torch.float32)
    ids, features = torch.randint(0, 50, (2, 7)), torch.randn(2, 2, 7)
    torch.testing.assert_close(opened.condition(features), tuned.condition(features), atol=1e-6, rtol=1e-5)
    expected = tuned(ids, conditioning=tuned.condition(features))
    actual = opened(ids, conditioning=opened.condition(features))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_misfits_are_named(tuned: MuLlama, tmp_path: Path) -> None:
    config, base = write(tuned, tmp_path)
    llama = (tuned.llama.config, base)
    adapter = load_file(tmp_path / "adapter.safetensors")

    def opening_with(**changes: torch.Tensor) -> None:
        save_file({**adapter, **changes}, tmp_path / "adapter.safetensors")
        assemble_native(tmp_path, config, llama, dtype=torch.float32)

    with pytest.raises(
        CheckpointError, match=r"adapter\.projectoin\.weight.*nearest known: 'adapter\.projection\.weight'"
    ):
        opening_with(**{"adapter.projectoin.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"conditioner\.gate.*\(1, 1\)"):
        opening_with(**{"conditioner.gate": torch.zeros(1, 1)})
    (tmp_path / "adapter.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(CheckpointError, match="not a whole safetensors"):
        assemble_native(tmp_path, config, llama, dtype=torch.float32)


def test_lora_that_fits_nothing_is_refused() -> None:
    base = {"layer.weight": torch.zeros(4, 3)}
    down, up = torch.zeros(2, 3), torch.zeros(4, 2)
    with pytest.raises(CheckpointError, match="fit the weight"):
        merge_lora(dict(base), base, {"layer.lora_A.weight": down, "layer.lora_B.weight": up.T}, source="file")
    with pytest.raises(CheckpointError, match=r"layr\.lora_A"):
        merge_lora(dict(base), base, {"layr.lora_A.weight": down, "layr.lora_B.weight": up}, source="file")
    with pytest.raises(CheckpointError, match="stray"):
        merge_lora(dict(base), base, {"stray": down}, source="file")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": "other/9"}, "other/9"), ({"surprise": 1}, "surprise"), ({"prompt": None}, None)],
)
def test_bad_configs(change: dict[str, object], message: str | None, tuned: MuLlama, tmp_path: Path) -> None:
    write(tuned, tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text()) | change
    if message is None:
        del raw["prompt"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=message or "prompt"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        read_model_config(tmp_path)
