"""What is trained goes to files and comes back the same; nothing else changes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from mu_llama.checkpoints.formats.native import ModelConfig, native_parts, write_model_files
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.engine.torch.load import Placement, assemble
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.training.collate import answer_loss
from mu_llama.training.optimizer import build_optimizer
from mu_llama.training.phases import FINETUNE, JOINT, PHASES, PRETRAIN, Phase, plain_name
from mu_llama.training.trainable import build_trainable, checkpoint_activations, export_tensors
from tests.factories.llama import LAYERS, tiny_batch, tiny_parts
from tests.factories.tensors import read, stored

CPU = Placement(torch.device("cpu"), torch.float32)
MODULE = "model.layers.1.self_attn.q_proj"


def train(model: MuLlama, num_updates: int = 3) -> MuLlama:
    optimizer = build_optimizer(model.train(), lr=0.02)
    for update in range(num_updates):
        optimizer.zero_grad()
        answer_loss(model, tiny_batch(seed=update)).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def logits_of(model: MuLlama) -> torch.Tensor:
    batch = tiny_batch(seed=99)
    return model(batch.ids, conditioning=model.condition(batch.features))


def exported(model: MuLlama, parts: ModelSpec, phase: Phase) -> ModelSpec:
    adapter, tuning = export_tensors(model.state_dict(), parts=parts, phase=phase)
    return dataclasses.replace(parts, adapter=stored(adapter), tuning=stored(tuning))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_exported_files_open_as_the_trained_model(phase: Phase, tied: bool, tmp_path: Path) -> None:
    parts = tiny_parts(tied=tied)
    before = logits_of(build_trainable(parts, phase=phase))
    model = train(build_trainable(parts, phase=phase, lora_rank=4))
    expected = logits_of(model)
    assert (expected - before).abs().max() > 0.05
    adapter, tuning = export_tensors(model.state_dict(), parts=parts, phase=phase)
    config = ModelConfig("tiny", "alpaca", parts.adapter_config, {"kind": "musicnn"}, {"folder": "llama"})
    write_model_files(tmp_path, config, adapter=stored(adapter), tuning=stored(tuning))
    opened = native_parts(tmp_path, config, parts.llama)
    torch.testing.assert_close(logits_of(assemble(opened, CPU)), expected, atol=1e-4, rtol=0)
    # And on to a second phase: every tensor is where it was.
    again = build_trainable(opened, phase=FINETUNE)
    torch.testing.assert_close(logits_of(again), expected, atol=1e-5, rtol=0)


def test_two_phases_keep_what_the_first_one_tuned() -> None:
    parts = tiny_parts()
    tuned = exported(train(build_trainable(parts, phase=FINETUNE)), parts, FINETUNE)
    model = train(build_trainable(tuned, phase=PRETRAIN))
    assert not any(value.requires_grad for value in model.llama.parameters())
    both = exported(model, tuned, PRETRAIN)
    assert both.tuning.keys() == tuned.tuning.keys()
    assert all(torch.equal(read(both.tuning[name]), read(tuned.tuning[name])) for name in tuned.tuning)
    torch.testing.assert_close(logits_of(assemble(both, CPU)), logits_of(model), atol=1e-4, rtol=0)


def test_a_phase_starts_from_the_very_model() -> None:
    parts = tiny_parts()
    plain = logits_of(assemble(parts, CPU))
    for phase in PHASES.values():
        torch.testing.assert_close(logits_of(build_trainable(parts, phase=phase)), plain, atol=1e-5, rtol=0)


def test_training_changes_neither_the_parts_nor_what_is_frozen() -> None:
    parts = tiny_parts()
    tuned = dataclasses.replace(parts, tuning=stored({"model.norm.weight": torch.full((24,), 1.5)}))
    model = build_trainable(tuned, phase=FINETUNE)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(model)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in model.named_parameters() if value.requires_grad}
    assert torch.equal(read(tuned.tuning["model.norm.weight"]), torch.full((24,), 1.5))
    for name in ("k_proj.base_layer.bias", "v_proj.base_layer.bias"):
        assert not model.get_parameter(f"llama.model.layers.0.self_attn.{name}").any()
    _, tuning = export_tensors(model.state_dict(), parts=tuned, phase=FINETUNE)
    assert not any(name.endswith(("k_proj.bias", "v_proj.bias")) for name in tuning)


def test_loras_of_other_ranks_and_of_some_modules_keep_theirs() -> None:
    pair = {f"{MODULE}.lora_A.weight": torch.randn(5, 24), f"{MODULE}.lora_B.weight": torch.randn(48, 5)}
    parts = dataclasses.replace(tiny_parts(), tuning=stored(pair))
    merged = logits_of(assemble(parts, CPU))
    for phase, num_modules in ((PRETRAIN, 1), (JOINT, 7 * LAYERS)):
        model = build_trainable(parts, phase=phase, lora_rank=2)
        ranks = {
            plain_name(name).removeprefix("llama.").removesuffix(".lora_A.weight"): len(value)
            for name, value in model.named_parameters()
            if "lora_A" in name
        }
        assert len(ranks) == num_modules
        assert ranks.pop(MODULE) == 5
        assert set(ranks.values()) <= {2}
        torch.testing.assert_close(logits_of(model), merged, atol=1e-4, rtol=1e-4)


def test_widths() -> None:
    model = build_trainable(tiny_parts(), phase=FINETUNE, dtype=torch.bfloat16)
    for name, value in model.named_parameters():
        wide = value.requires_grad or not name.startswith("llama.")
        assert value.dtype == (torch.float32 if wide else torch.bfloat16), name
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = answer_loss(model.train(), tiny_batch())
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in trained(model))
    wanted = answer_loss(build_trainable(tiny_parts(), phase=FINETUNE), tiny_batch())
    assert loss.item() == pytest.approx(wanted.item(), rel=0.02)
    narrow = build_trainable(tiny_parts(), phase=JOINT, dtype=torch.bfloat16, lora_dtype=torch.bfloat16)
    assert {value.dtype for name, value in narrow.named_parameters() if "lora_" in name} == {torch.bfloat16}


def trained(model: MuLlama) -> list[torch.nn.Parameter]:
    return [value for value in model.parameters() if value.requires_grad]


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_checkpointing_gives_the_same_gradients(phase: Phase) -> None:
    model = build_trainable(tiny_parts(), phase=phase).train()
    if phase.adds_lora:  # a fresh LoRA's first half has no gradient
        for name, value in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=0.1)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        answer_loss(model, tiny_batch()).backward()
        return [value.grad.clone() for value in trained(model)]

    plain = gradients()
    calls = []
    model.llama.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(None))
    checkpoint_activations(model)
    again = gradients()
    # With the adapter alone a layer that the audio doesn't enter has no gradients, and isn't computed again.
    assert len(calls) == (1 if phase is PRETRAIN else 2)
    for value, expected in zip(again, plain, strict=True):
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)
        assert expected.any()


def test_seeds_decide_the_lora() -> None:
    parts = tiny_parts()
    one, same, other = (dict(build_trainable(parts, phase=JOINT, seed=seed).named_parameters()) for seed in (0, 0, 1))
    name = f"llama.{MODULE}.lora_A.default.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])
    assert not torch.equal(one[name], one[name.replace("layers.1", "layers.0")])


def test_misfits_are_named() -> None:
    parts = tiny_parts()
    odd = {"model.layers.9.mlp.up_proj.lora_A.weight": torch.zeros(2, 24)}
    with pytest.raises(CheckpointError, match="expected both"):
        build_trainable(dataclasses.replace(parts, tuning=stored(odd)), phase=JOINT)
    odd["model.layers.9.mlp.up_proj.lora_B.weight"] = torch.zeros(40, 2)
    with pytest.raises(CheckpointError, match=r"layers\.9\.mlp\.up_proj\.lora_A"):
        build_trainable(dataclasses.replace(parts, tuning=stored(odd)), phase=JOINT)
    wide = {f"{MODULE}.lora_A.weight": torch.zeros(2, 23), f"{MODULE}.lora_B.weight": torch.zeros(48, 2)}
    with pytest.raises(CheckpointError, match=r"shape \(2, 23\); expected \(2, 24\)"):
        build_trainable(dataclasses.replace(parts, tuning=stored(wide)), phase=JOINT)


def test_a_lora_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'mu-llama\[train\]'"):
        build_trainable(tiny_parts(), phase=JOINT)
    build_trainable(tiny_parts(), phase=PRETRAIN)


def test_a_merged_llama_gets_no_second_lora() -> None:
    halves = {"conditioner.value_lora_A": torch.zeros(2, 4, 24), "conditioner.value_lora_B": torch.zeros(2, 16, 4)}
    parts = tiny_parts()
    merged = dataclasses.replace(parts, adapter={**parts.adapter, **stored(halves)})
    with pytest.raises(CheckpointError, match="convert without --merge"):
        build_trainable(merged, phase=JOINT)
    adapter, tuning = export_tensors(
        train(build_trainable(merged, phase=PRETRAIN)).state_dict(), parts=merged, phase=PRETRAIN
    )
    assert adapter.keys() == merged.adapter.keys()
    assert not tuning
