"""The whole model: an adapter and a conditioner beside a stock LLaMA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig as TransformersConfig
from transformers import LlamaForCausalLM
from transformers.cache_utils import Cache, DynamicCache

from mu_llama.errors import CheckpointError
from mu_llama.model.adapter import AudioAdapter
from mu_llama.model.conditioning import ATTENTION_NAME, LayerConditioner
from mu_llama.model.config import AdapterConfig, LlamaConfig
from mu_llama.model.retrieval import Blend


class MuLlama(nn.Module):
    """An audio adapter, a layer conditioner and a stock LLaMA.

    Args:
        llama: any transformers model of the LLaMA family, set to `ATTENTION_NAME` attention here.
        adapter: features to audio vector.
        conditioner: audio vector to per-layer terms; of no layer where the adapter makes audio tokens.
    """

    def __init__(self, llama: LlamaForCausalLM, *, adapter: AudioAdapter, conditioner: LayerConditioner) -> None:
        super().__init__()
        llama.set_attn_implementation(ATTENTION_NAME)
        self.llama = llama
        self.adapter = adapter
        self.conditioner = conditioner

    @property
    def device(self) -> torch.device:
        """Device of the token embeddings, to which token ids are moved."""
        device: torch.device = self.llama.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the LLaMA."""
        dtype: torch.dtype = self.llama.get_input_embeddings().weight.dtype
        return dtype

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return int(self.llama.config.max_position_embeddings) - self.num_audio_tokens

    @property
    def num_audio_tokens(self) -> int:
        """Audio tokens that stand before a prompt; 0 where the audio conditions layers."""
        return self.adapter.config.num_audio_tokens

    def value_projections(self) -> list[nn.Module]:
        """The value projections of the conditioned layers, in layer order."""
        layers = self.llama.get_decoder().layers[-self.conditioner.prefix.shape[0] :]
        projections = [layer.self_attn.v_proj for layer in layers]
        # A peft layer keeps the frozen projection inside.
        return [getattr(projection, "base_layer", projection) for projection in projections]

    def condition(self, features: Tensor, *, blend: Blend | None = None) -> Tensor:
        """Features (B, L, D) to conditioning: once per track, reused for every token and question.

        Returns:
            (B, Q, A), terms of the conditioned layers; or (B, N, H) of a model with audio tokens.
        """
        sizes = self.adapter.config
        if features.shape[1:] != (sizes.num_encoder_layers, sizes.encoder_width):
            raise CheckpointError(
                f"the encoder gives {features.shape[1]} layers of width {features.shape[2]}; this adapter was made for "
                f"{sizes.num_encoder_layers} of {sizes.encoder_width}: use the encoder it was trained with"
            )
        weight = self.conditioner.prefix
        audio = self.adapter(features.to(weight.device, weight.dtype), blend=blend)
        if self.adapter.tokens is not None:
            tokens: Tensor = self.adapter.tokens(audio)
            return tokens
        conditioning: Tensor = self.conditioner(audio, self.value_projections(), self.dtype)
        return conditioning

    def forward(
        self,
        input_ids: Tensor,
        *,
        conditioning: Tensor | None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        logits_to_keep: int = 0,
    ) -> Tensor:
        """Compute logits.

        Args:
            input_ids: (B, T).
            conditioning: from `condition`, one row per sequence, or None for text alone.
            attention_mask: (B, past + T), 1 for real tokens of text; None where there is no padding.
            position_ids: (B, T), counting tokens of text; None counts from the cache.
            past_key_values: cache of earlier tokens, extended in place; begin with an empty one.
            logits_to_keep: compute only the last so many positions; 0 for all.

        Returns:
            Float32 logits (B, T or logits_to_keep, vocabulary).
        """
        output = self.llama(
            **self.inputs(input_ids, conditioning, attention_mask, position_ids, past_key_values),
            past_key_values=past_key_values,
            use_cache=past_key_values is not None,
            logits_to_keep=logits_to_keep or input_ids.shape[1],
        )
        logits: Tensor = output.logits.float()
        return logits

    def inputs(
        self,
        input_ids: Tensor,
        conditioning: Tensor | None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> dict[str, Any]:
        """Arguments with which the LLaMA, or its decoder, reads text about a track; see `forward`.

        Audio tokens come before the text, at the positions before it, and once: a cache remembers them.
        """
        text = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        if conditioning is None:
            return text
        num_tokens = self.num_audio_tokens
        if not num_tokens:
            return {**text, "conditioning": conditioning}
        if attention_mask is not None:
            attention_mask = nn.functional.pad(attention_mask, (num_tokens, 0), value=1)
        if position_ids is not None:
            position_ids = position_ids + num_tokens
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        embedded = self.llama.get_input_embeddings()(input_ids)
        if position_ids is not None:
            before = torch.arange(num_tokens, device=position_ids.device).expand(len(position_ids), -1)
            position_ids = torch.cat([before, position_ids], dim=1)
        return {
            "inputs_embeds": torch.cat(
                [conditioning.to(embedded.device, embedded.dtype), embedded], dim=1
            ),  # (B, N + T, H)
            "attention_mask": attention_mask,
            "position_ids": position_ids,
        }

    def new_cache(self) -> DynamicCache:
        """An empty key-value cache that grows as needed."""
        return DynamicCache(config=self.llama.config)


def build_mu_llama(
    llama_config: LlamaConfig,
    adapter_config: AdapterConfig,
    *,
    dtype: torch.dtype,
    value_lora_rank: int | None = None,
    meta: bool = True,
) -> MuLlama:
    """Make the modules from numbers; no disk is touched.

    Args:
        llama_config: sizes of the LLaMA.
        adapter_config: sizes of the adapter.
        dtype: of the LLaMA; the adapter is in float32.
        value_lora_rank: rank of a LoRA that is merged into the value projections, or None.
        meta: on the meta device, to be filled with weights, instead of the CPU.
    """
    rows = llama_config.num_key_value_heads * llama_config.head_dim
    with torch.device("meta" if meta else "cpu"):
        llama = LlamaForCausalLM(to_transformers(llama_config)).to(dtype)
        adapter = AudioAdapter(adapter_config)
        conditioner = LayerConditioner(
            adapter_config.num_conditioned_layers,
            adapter_config.hidden_size,
            num_heads=adapter_config.num_heads,
            head_width=llama_config.head_dim,
            value_lora=None if value_lora_rank is None else (value_lora_rank, rows),
        )
    return MuLlama(llama, adapter=adapter, conditioner=conditioner)


def to_transformers(config: LlamaConfig) -> TransformersConfig:
    """Give the same settings to transformers."""
    # A token for padding would only choose a row of the embeddings not to be trained.
    translated: TransformersConfig = TransformersConfig.from_dict({**config.to_json(), "pad_token_id": None})
    return translated
