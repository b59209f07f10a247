"""The weight formats: one file each, which recognises and reads its own, and one line in `FORMATS`."""

from __future__ import annotations

from mu_llama.checkpoints.formats import (
    faiss,
    gguf,
    hugging_face,
    hugging_face_tokenizer,
    meta,
    native,
    onnx_graph,
    published,
    sentencepiece,
)
from mu_llama.checkpoints.formats.encoder import encoder_format
from mu_llama.checkpoints.formats.format import Format
from mu_llama.encoders import ENCODERS

FORMATS: list[Format] = [
    native.FORMAT,
    onnx_graph.FORMAT,
    hugging_face.FORMAT,
    hugging_face.PEFT_FORMAT,
    meta.FORMAT,
    gguf.FORMAT,
    faiss.FORMAT,
    sentencepiece.FORMAT,
    hugging_face_tokenizer.FORMAT,
    published.BASELINE_FORMAT,
    published.FORMAT,
]
"""Every format but those of audio encoders, which `ENCODERS` lists; of several that fit, the first counts."""


def all_formats() -> list[Format]:
    """Every format that is known now."""
    return [*(encoder_format(kind) for kind in ENCODERS.values() if kind.recognise is not None), *FORMATS]


def format_of(kind: str) -> Format | None:
    """Find the format of a detection's kind; None for what is unknown or part of a folder."""
    return next((weight_format for weight_format in all_formats() if weight_format.kind == kind), None)
