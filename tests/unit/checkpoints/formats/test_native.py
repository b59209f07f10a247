"""Our model folder: what is written opens again, LoRA merges as peft does, misfits are named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from mu_llama.arrays import BFLOAT16, FLOAT32
from mu_llama.checkpoints.formats.native import ModelConfig, native_parts, read_model_config, write_model_files
from mu_llama.checkpoints.lora import merged_llama
from mu_llama.checkpoints.spec import LlamaSpec, TokenizerFile
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.engine.torch.load import Placement, assemble
from mu_llama.errors import CheckpointError
from tests.factories.models import make_model
from tests.factories.tensors import own_config, read, stored

CPU = Placement(torch.device("cpu"), torch.float32)
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


def write(model: MuLlama, folder: Path) -> tuple[ModelConfig, LlamaSpec]:
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
    write_model_files(folder, config, adapter=stored(adapter), tuning=stored(lora))
    tokenizer = TokenizerFile("tokenizer.json", "nowhere", bytes)
    return config, LlamaSpec(own_config(model.llama.config), stored(base), tokenizer, source="a LLaMA")


@torch.inference_mode()
def test_written_and_merged_equals_peft(tuned: MuLlama, tmp_path: Path) -> None:
    config, llama = write(tuned, tmp_path)
    assert read_model_config(tmp_path) == config
    opened = assemble(native_parts(tmp_path, config, llama), CPU)
    ids, features = torch.randint(0, 50, (2, 7)), torch.randn(2, 2, 7)
    torch.testing.assert_close(opened.condition(features), tuned.condition(features), atol=1e-6, rtol=1e-5)
    expected = tuned(ids, conditioning=tuned.condition(features))
    actual = opened(ids, conditioning=opened.condition(features))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_merging_in_bf16_adds_with_sums_in_float32() -> None:
    model, module = make_model(), "model.layers.0.self_attn.q_proj"
    llama = {name.removeprefix("llama."): value for name, value in model.state_dict().items() if "llama." in name}
    base = {name: value.bfloat16() for name, value in llama.items()}
    weight = base[f"{module}.weight"].clone()
    up, down = torch.randn(weight.shape[0], 4).half() / 8, torch.randn(4, weight.shape[1]).half() / 8
    pair = stored({f"{module}.lora_B.weight": up, f"{module}.lora_A.weight": down})
    tokenizer = TokenizerFile("tokenizer.json", "nowhere", bytes)
    parts = LlamaSpec(own_config(model.llama.config), stored(base), tokenizer, source="a LLaMA")
    _, merged = merged_llama(parts, pair, dtype=BFLOAT16, source="file")
    exact = weight.double() + up.bfloat16().double() @ down.bfloat16().double()
    actual = read(merged[f"{module}.weight"])
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.double(), exact, rtol=2**-8, atol=1e-6)


def test_misfits_are_named(tuned: MuLlama, tmp_path: Path) -> None:
    config, llama = write(tuned, tmp_path)
    adapter = load_file(tmp_path / "adapter.safetensors")

    def opening_with(**changes: torch.Tensor) -> None:
        save_file({**adapter, **changes}, tmp_path / "adapter.safetensors")
        assemble(native_parts(tmp_path, config, llama), CPU)

    with pytest.raises(
        CheckpointError, match=r"adapter\.projectoin\.weight.*nearest known: 'adapter\.projection\.weight'"
    ):
        opening_with(**{"adapter.projectoin.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"conditioner\.gate.*\(1, 1\)"):
        opening_with(**{"conditioner.gate": torch.zeros(1, 1)})
    (tmp_path / "adapter.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(CheckpointError, match="not a whole safetensors"):
        assemble(native_parts(tmp_path, config, llama), CPU)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"lora_A": torch.zeros(2, 8), "lora_B": torch.zeros(2, 4)}, "expected a fit to"),
        ({"lora_A": torch.zeros(2, 8)}, "expected both"),
    ],
)
def test_lora_that_fits_nothing_is_refused(
    tuned: MuLlama, lora: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    _, llama = write(tuned, tmp_path)
    module = "model.layers.0.self_attn.q_proj"
    tuning = stored({f"{module}.{half}.weight": value for half, value in lora.items()})
    with pytest.raises(CheckpointError, match=message):
        merged_llama(llama, tuning, dtype=FLOAT32, source="file")
    odd = stored({f"layr.{half}.weight": torch.zeros(2, 2) for half in ("lora_A", "lora_B")})
    with pytest.raises(CheckpointError, match=r"layr\.lora_A"):
        merged_llama(llama, odd, dtype=FLOAT32, source="file")


def test_strays_in_the_tuning_are_named(tuned: MuLlama, tmp_path: Path) -> None:
    config, llama = write(tuned, tmp_path)
    parts = native_parts(tmp_path, config, llama)
    with pytest.raises(CheckpointError, match="stray"):
        assemble(dataclasses.replace(parts, tuning={**parts.tuning, **stored({"stray": torch.zeros(1)})}), CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other/9"}, "other/9"),
        ({"surprise": 1}, "surprise"),
        ({"llama": "x"}, "llama='x'"),
        ({"llama": {}}, "expected one of"),
        ({"adapter": 3}, "adapter|mapping"),
        ({"prompt": "alpca"}, "alpca"),
        ({"prompt": None}, None),
    ],
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
