"""A tiny random MU-LLaMA: a grouped-query LLaMA whose heads are not hidden/heads wide, with conditioned layers."""

from __future__ import annotations

import torch

from mu_llama.engine.torch.llama import MuLlama, build_mu_llama
from mu_llama.model.config import AdapterConfig, LlamaConfig

HEADS, KEY_VALUE_HEADS, HEAD_WIDTH, HIDDEN, LAYERS, CONDITIONED = 6, 2, 8, 42, 5, 3


def make_model(seed: int = 0) -> MuLlama:
    config = LlamaConfig(
        vocab_size=50, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS, head_dim=HEAD_WIDTH, max_position_embeddings=64,
    )  # fmt: skip
    sizes = AdapterConfig(
        num_encoder_layers=2, encoder_width=7, hidden_size=HIDDEN, num_conditioned_layers=CONDITIONED, num_heads=HEADS,
        bridge_width=16, num_blocks=2, input_scaling="standardise",
    )  # fmt: skip
    torch.manual_seed(seed)
    model = build_mu_llama(config, sizes, dtype=torch.float32, meta=False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()
