"""What every weight format is read into: a model in parts, each still on disk.

The formats (`checkpoints.formats`) make these; `engine.torch.load` and `engine.onnx.load` build a model of them,
`convert` writes them to files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.model.config import AdapterConfig, LlamaConfig
from mu_llama.text.prompts import PromptTemplate

SENTENCEPIECE_FILE = "tokenizer.model"
FAST_TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer as a file's content."""

    name: str
    """`tokenizer.model` (SentencePiece) or `tokenizer.json`."""
    source: str
    """Where it comes from, for error messages."""
    read: Callable[[], bytes]
    """Gives the content."""
    fills_embeddings: bool = False
    """Whether the LLaMA has exactly as many embeddings as this has tokens; others may be padded beyond them."""


@dataclass(frozen=True)
class LlamaSpec:
    """A LLaMA under transformers' names."""

    config: LlamaConfig
    """Its sizes."""
    tensors: Mapping[str, LazyTensor]
    """Weights; the output embedding is left out where it is tied."""
    tokenizer: TokenizerFile
    """Of this LLaMA."""
    source: str
    """The file or folder to name in errors."""
    files: tuple[Path, ...] = ()
    """What it was read from."""
    graph: Path | None = None
    """Folder of an onnx graph that has the weights, tuning merged; `tensors` is empty then."""


@dataclass(frozen=True)
class EncoderSpec:
    """An audio encoder: settings for `encoders.build_encoder`, or MERT's tensors out of a checkpoint."""

    spec: Mapping[str, Any]
    """`kind` and its settings."""
    tensors: Mapping[str, LazyTensor] = field(default_factory=dict)
    """MERT's weights where the checkpoint itself holds them; else empty."""
    config: Mapping[str, Any] | None = None
    """Content of config.json for `tensors`; None for the published size that they have."""


@dataclass(frozen=True)
class ModelSpec:
    """A whole model."""

    name: str
    """What an answer says it was written by."""
    llama: LlamaSpec
    """The language model before tuning."""
    tuning: Mapping[str, LazyTensor]
    """What tuning changed in it: `<module>.lora_A.weight` (rank, in) with `<module>.lora_B.weight` (out, rank)
    of scale 1, and biases and norms under their own names."""
    adapter_config: AdapterConfig
    """Sizes of the adapter."""
    adapter: Mapping[str, LazyTensor]
    """Tensors under the names `adapter.*` and `conditioner.*`."""
    template: PromptTemplate
    """How its prompts read."""
    encoder: EncoderSpec
    """The audio encoder."""
    source: str
    """The file or folder to name in errors."""
    window: str = "full"
    """Name of the plan that says which seconds of a track it encodes by default."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Part of the model to the licence that applies."""
    files: tuple[Path, ...] = ()
    """What it was read from."""
