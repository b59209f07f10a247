"""A tiny random model in parts, with a grouped-query LLaMA, and batches for it."""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM

from mu_llama.checkpoints.spec import EncoderSpec, LlamaSpec, ModelSpec, TokenizerFile
from mu_llama.engine.torch.llama import to_transformers
from mu_llama.model.config import AdapterConfig, LlamaConfig
from mu_llama.text.prompts import ALPACA
from mu_llama.training.collate import IGNORED, Batch
from mu_llama.training.initialization import fresh_adapter
from tests.factories.tensors import stored

VOCABULARY, LAYERS = 60, 3
SIZES = AdapterConfig(
    num_encoder_layers=2, encoder_width=7, hidden_size=24, num_conditioned_layers=2, num_heads=6, bridge_width=16,
    num_blocks=2,
)  # fmt: skip


def tiny_parts(*, tied: bool = False, gate: float | None = 0.3) -> ModelSpec:
    """A model before any tuning; its gates are 0.3, so that the audio has an effect."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=LAYERS, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    llama = LlamaForCausalLM(to_transformers(config))
    for parameter in llama.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    weights = {
        name: value.detach() for name, value in llama.state_dict().items() if not tied or name != "lm_head.weight"
    }
    adapter = fresh_adapter(SIZES, seed=1)
    if gate is not None:
        adapter |= stored({"conditioner.gate": torch.full(adapter["conditioner.gate"].shape, gate)})
    return ModelSpec(
        name="tiny",
        llama=LlamaSpec(config, stored(weights), TokenizerFile("tokenizer.json", "nowhere", bytes), source="a LLaMA"),
        tuning={},
        adapter_config=SIZES,
        adapter=adapter,
        template=ALPACA,
        encoder=EncoderSpec({"kind": "musicnn"}),
        source="tiny",
    )


def tiny_batch(*, seed: int = 0, rows: int = 2, width: int = 9) -> Batch:
    """Random rows of different lengths whose second half is to be learnt."""
    source = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (rows, width), generator=source)
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, : width // 2] = IGNORED
    for row in range(1, rows):
        ids[row, -row:], labels[row, -row:], mask[row, -row:] = 0, IGNORED, 0
    return Batch(ids, labels, mask, torch.randn(rows, 2, 7, generator=source))
