"""Audio tokens before the prompt, against the stock LLaMA given the same embeddings by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from mu_llama.checkpoints.formats.native import ModelConfig, native_parts, read_model_config, write_model_files
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.engine.torch.engine import TorchEngine
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.errors import ConfigError
from mu_llama.model.adapter import AudioTokens
from mu_llama.training.collate import IGNORED, AnswerLoss
from mu_llama.training.initialization import fresh_adapter
from mu_llama.training.phases import JOINT
from mu_llama.training.trainable import build_trainable, export_tensors
from tests.factories.generation import generate
from tests.factories.llama import SIZES, tiny_batch, tiny_parts
from tests.factories.tensors import stored

TOKENS = 5
WITH_TOKENS = replace(SIZES, num_conditioned_layers=0, num_audio_tokens=TOKENS)


def parts_with_tokens() -> ModelSpec:
    return replace(tiny_parts(), adapter_config=WITH_TOKENS, adapter=fresh_adapter(WITH_TOKENS, seed=3))


@pytest.fixture
def model() -> MuLlama:
    return build_trainable(parts_with_tokens(), phase=JOINT, lora_rank=2).eval()


def by_hand(model: MuLlama, features: Tensor, ids: Tensor) -> Tensor:
    """Logits of the text: tokens written out, and put in front of the embeddings of a stock model."""
    tokens = model.adapter.tokens
    assert tokens is not None
    audio = model.adapter(features)
    rows = []
    for vector in audio:
        heard = [
            1 / (1 + torch.exp(-(weight @ vector + bias)))
            for weight, bias in zip(*tokens.reading.parameters(), strict=True)
        ]
        rows.append(torch.stack([
            name + p * tokens.present + (1 - p) * tokens.absent for name, p in zip(tokens.names, heard, strict=True)
        ]))  # fmt: skip
    stock = LlamaForCausalLM(model.llama.config).eval()
    stock.set_attn_implementation("eager")
    plain = {name.replace(".base_layer", ""): value for name, value in model.llama.state_dict().items()}
    stock.load_state_dict({name: value for name, value in plain.items() if "lora_" not in name})
    embedded = torch.cat([torch.stack(rows), stock.get_input_embeddings()(ids)], dim=1)
    logits: Tensor = stock(inputs_embeds=embedded).logits[:, TOKENS:]
    return logits


@torch.no_grad()
def test_logits_equal_those_of_a_stock_llama(model: MuLlama) -> None:
    features, ids = torch.randn(2, 2, 7), torch.randint(1, 60, (2, 9))
    expected = by_hand(model, features, ids)
    assert (expected - model(ids, conditioning=None)).abs().max() > 0.01  # it hears something
    torch.testing.assert_close(model(ids, conditioning=model.condition(features)), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_of_a_padded_batch_answer_as_each_alone(model: MuLlama) -> None:
    conditioning = model.condition(torch.randn(3, 2, 7))
    prompts = [[5, 9, 11, 3], [7, 2], [8, 8, 1, 4, 30, 31]]

    def written(rows: list[int]) -> list[list[int]]:
        own = [conditioning[row].numpy() for row in rows]
        return generate(TorchEngine(model), [prompts[row] for row in rows], own, max_new_tokens=8)

    together, alone = written([0, 1, 2]), [written([row])[0] for row in range(3)]
    assert together == alone


@torch.no_grad()
def test_writing_with_a_cache_equals_reading_at_once(model: MuLlama) -> None:
    features, prompt = torch.randn(1, 2, 7), [5, 9, 11]
    conditioning, ids = model.condition(features), list(prompt)
    for token in generate(TorchEngine(model), [prompt], [conditioning[0].numpy()], max_new_tokens=6)[0]:
        assert token == int(by_hand(model, features, torch.tensor([ids]))[0, -1].argmax())
        ids.append(token)


def test_the_loss_is_of_the_text_alone_and_reaches_every_part(model: MuLlama) -> None:
    batch = tiny_batch(rows=3)
    loss = AnswerLoss(model)(batch)
    with torch.no_grad():
        logits = by_hand(model, batch.features, batch.ids)
        expected = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED
        )
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    untouched = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert all("lora_A" in name for name in untouched)  # a fresh LoRA's other half is 0


@pytest.mark.parametrize("choices", [0, 2])
def test_a_model_folder_keeps_them(tmp_path: Path, choices: int) -> None:
    sizes = replace(WITH_TOKENS, num_choices=choices)
    parts = replace(tiny_parts(), adapter_config=sizes, adapter=fresh_adapter(sizes, seed=3))
    model = build_trainable(parts, phase=JOINT, lora_rank=2).eval()
    adapter, _ = export_tensors(model.state_dict(), parts=parts, phase=JOINT)
    config = ModelConfig("tiny", "alpaca", sizes, {"kind": "musicnn"}, {"folder": "llama"})
    write_model_files(tmp_path, config, adapter=stored(adapter), tuning={})
    opened = native_parts(tmp_path, read_model_config(tmp_path), parts.llama)
    again = build_trainable(opened, phase=JOINT, lora_rank=2).eval()
    features, ids = torch.randn(1, 2, 7), torch.tensor([[4, 5, 6]])
    assert model.condition(features).shape[1] == TOKENS
    torch.testing.assert_close(
        again(ids, conditioning=again.condition(features)), model(ids, conditioning=model.condition(features))
    )


def test_room_for_text_is_less_by_the_tokens(model: MuLlama) -> None:
    assert model.context_length == 64 - TOKENS


@pytest.mark.parametrize(("layers", "tokens"), [(0, 0), (2, 5)])
def test_one_way_in_is_wanted(layers: int, tokens: int) -> None:
    with pytest.raises(ConfigError, match="expected one of them"):
        replace(SIZES, num_conditioned_layers=layers, num_audio_tokens=tokens)


@torch.no_grad()
def test_a_choice_names_the_likeliest_of_its_members() -> None:
    torch.manual_seed(0)
    tokens = AudioTokens(4, 6, 2)
    tokens.names.normal_()
    tokens.kinds.normal_()
    tokens.members.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]))
    tokens.reading.weight.zero_()
    tokens.reading.bias.copy_(torch.tensor([0.0, 1.0, 5.0, 5.0]))
    tokens.sharpness.copy_(torch.tensor([2.0, 1.0]))
    made = tokens(torch.zeros(3, 6))
    assert made.shape == (3, 6, 6)
    first, second = made[0, 4:] - tokens.kinds
    share = 1 / (1 + math.exp(-2.0))
    torch.testing.assert_close(first, (1 - share) * tokens.names[0] + share * tokens.names[1])
    torch.testing.assert_close(second, tokens.names[2:].mean(0))
    plain = AudioTokens(4, 6)
    plain.load_state_dict({name: value for name, value in tokens.state_dict().items() if name in plain.state_dict()})
    assert torch.equal(plain(torch.zeros(3, 6)), made[:, :4])


def test_there_are_fewer_choices_than_tokens() -> None:
    with pytest.raises(ConfigError, match="expected fewer"):
        replace(WITH_TOKENS, num_choices=TOKENS)
