"""Read a GGUF file of the LLaMA architecture: sizes, dequantised tensors and the tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig

from mu_llama.checkpoints.llama_names import interleaved_to_halves
from mu_llama.errors import CheckpointError

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
# Rotary factors that llama.cpp stores for scaled angles.
_IGNORED = {"rope_freqs.weight"}
_CONTROL_TOKEN = 3
_DIGIT_SPLITTING = ("smollm",)


@dataclass(frozen=True)
class GgufModel:
    """An opened file; tensors are dequantised one at a time."""

    path: Path
    """Where it is, for error messages."""
    fields: dict[str, Any]
    """Metadata under GGUF's names."""
    tensors: list[Any]
    """The reader's tensor records."""

    def field(self, name: str) -> Any:
        """Look a metadata value up.

        Raises:
            CheckpointError: if the file lacks it.
        """
        if name not in self.fields:
            raise CheckpointError(f"{self.path}: GGUF metadata lacks {name!r}; expected a whole LLaMA model")
        return self.fields[name]


def open_gguf(path: Path) -> GgufModel:
    """Open a file and check that it is a LLaMA.

    Raises:
        CheckpointError: if it isn't GGUF, is cut short, or holds another architecture.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise CheckpointError(f"{path}: not a whole GGUF file ({error}); download it again") from error
    model = GgufModel(path, fields, list(reader.tensors))
    architecture = model.field("general.architecture")
    if architecture != "llama":
        raise CheckpointError(f"{path}: architecture {architecture!r}; expected llama")
    return model


def gguf_llama_config(model: GgufModel) -> LlamaConfig:
    """Read the sizes off the metadata and the embedding's shape."""
    heads = int(model.field("llama.attention.head_count"))
    hidden_size = int(model.field("llama.embedding_length"))
    names = {tensor.name for tensor in model.tensors}
    vocab_size = next(int(t.shape[1]) for t in model.tensors if t.name == "token_embd.weight")
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=int(model.field("llama.feed_forward_length")),
        num_hidden_layers=int(model.field("llama.block_count")),
        num_attention_heads=heads,
        num_key_value_heads=int(model.fields.get("llama.attention.head_count_kv", heads)),
        head_dim=int(model.fields.get("llama.attention.key_length", hidden_size // heads)),
        max_position_embeddings=int(model.field("llama.context_length")),
        # Stored as float32: 9.9999997e-06 is 1e-05.
        rms_norm_eps=float(f"{model.field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(model.fields.get("llama.rope.freq_base", 10000.0)),
        },
        tie_word_embeddings="output.weight" not in names,
        bos_token_id=model.fields.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=model.fields.get("tokenizer.ggml.eos_token_id"),
        pad_token_id=None,
    )


def gguf_tensors(model: GgufModel, config: LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    """Dequantise tensor by tensor.

    Yields:
        Hugging Face name and float32 tensor, rotary rows in Hugging Face's order.

    Raises:
        CheckpointError: for a tensor that no LLaMA has.
    """
    import gguf

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for record in model.tensors:
        if record.name in _IGNORED:
            continue
        # A copy: unquantised tensors come as read-only views of the file.
        tensor = torch.from_numpy(gguf.dequantize(record.data, record.tensor_type).astype(np.float32, copy=True))
        if record.name in _TOP:
            yield _TOP[record.name], tensor
            continue
        match = _LAYER_NAME.fullmatch(record.name)
        if match is None or match[2] not in _LAYER:
            raise CheckpointError(f"{model.path}: tensor {record.name!r} is no part of a LLaMA")
        if match[2] in heads:
            tensor = interleaved_to_halves(tensor, heads[match[2]])
        yield f"model.layers.{match[1]}.{_LAYER[match[2]]}.{match[3]}", tensor


def gguf_tokenizer(model: GgufModel) -> Any:
    """Build a `tokenizers.Tokenizer` from the byte-level BPE in the metadata.

    Raises:
        CheckpointError: for a tokenizer of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    kind, pre = model.field("tokenizer.ggml.model"), model.fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in _DIGIT_SPLITTING:
        raise CheckpointError(
            f"{model.path}: tokenizer {kind!r} with pre-tokenizer {pre!r}; expected 'gpt2' with {_DIGIT_SPLITTING[0]!r}"
        )
    words: list[str] = model.field("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in model.field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE(vocab={word: index for index, word in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = model.field("tokenizer.ggml.token_type")
    special = [word for word, kind in zip(words, types, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    return tokenizer
