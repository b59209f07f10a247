"""Write a checkpoint with the shapes, names and dtypes of the published one and random numbers in it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import HubertModel

from benchmarks.measure import ROOT
from mu_llama.checkpoints.formats.sentencepiece import NORMAL, Piece, parse_bpe_model, serialise_bpe_model
from mu_llama.encoders.mert.config import PUBLISHED_CONFIGS, parse_mert_config

TOKENIZER = ROOT / "tests" / "golden" / "set_a" / "llama" / "tokenizer.model"
WIDTH, LAYERS, HEADS, INNER, VOCABULARY = 4096, 32, 32, 11008, 32000
CONDITIONED, STATES, ENCODER_WIDTH, RANK = 20, 25, 1024, 16
_LINEARS = {
    "attention.wq": (WIDTH, WIDTH), "attention.wk": (WIDTH, WIDTH), "attention.wv": (WIDTH, WIDTH),
    "attention.wo": (WIDTH, WIDTH), "feed_forward.w1": (INNER, WIDTH), "feed_forward.w2": (WIDTH, INNER),
    "feed_forward.w3": (INNER, WIDTH),
}  # fmt: skip
_BIASED = ("attention.wq", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
_BLOCK_BYTES = 1 << 26


def shapes() -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
    """Name, shape and dtype of everything in `model` of a finetune checkpoint, as REFERENCE describes it."""
    half, full = torch.float16, torch.float32
    yield "llama.tok_embeddings.weight", (VOCABULARY, WIDTH), half
    for layer in range(LAYERS):
        for module, (rows, columns) in _LINEARS.items():
            name = f"llama.layers.{layer}.{module}"
            part, _, short = module.partition(".")
            yield f"{name}.weight", (rows, columns), half
            if module in _BIASED:
                yield f"{name}.bias", (rows,), full
            yield f"llama.layers.{layer}.{part}.lora_{short}_l1.weight", (RANK, columns), full
            yield f"llama.layers.{layer}.{part}.lora_{short}_l2.weight", (rows, RANK), full
        yield f"llama.layers.{layer}.attention.gate", (1, HEADS, 1, 1), half
        yield f"llama.layers.{layer}.attention_norm.weight", (WIDTH,), full
        yield f"llama.layers.{layer}.ffn_norm.weight", (WIDTH,), full
    yield "llama.norm.weight", (WIDTH,), full
    yield "llama.output.weight", (VOCABULARY, WIDTH), half
    yield "prefix_query.weight", (CONDITIONED, WIDTH), full
    yield "mu_mert_agg.weight", (1, STATES, 1), full
    yield "mu_mert_agg.bias", (1,), full
    yield "mu_mert_proj.weight", (WIDTH, ENCODER_WIDTH), full
    yield "mu_mert_proj.bias", (WIDTH,), full
    for block in (1, 2, 3):
        yield f"mu_mert_norm_{block}.weight", (WIDTH,), full
        yield f"mu_mert_f1_{block}.weight", (4 * WIDTH, WIDTH), full
        yield f"mu_mert_f2_{block}.weight", (WIDTH, 4 * WIDTH), full
        yield f"mu_mert_f3_{block}.weight", (4 * WIDTH, WIDTH), full
    config = parse_mert_config(PUBLISHED_CONFIGS["MERT-v1-330M"])
    with torch.device("meta"):
        mert = HubertModel(config.to_hubert())
    for name, value in mert.state_dict().items():
        yield f"mert_model.{name}", tuple(value.shape), full


def write_checkpoint(folder: Path) -> Path:
    """Write checkpoint.pth (about 17.7 GB), params.json and a tokenizer.model into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "checkpoint.pth"
    with FakeTensorMode():
        model = {name: torch.empty(shape, dtype=dtype) for name, shape, dtype in shapes()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"model": model, "epoch": 19, "args": argparse.Namespace(llama_type="7B")}, path)
    _fill(path, {name: dtype for name, _, dtype in shapes()})
    params = {"dim": WIDTH, "multiple_of": 256, "n_heads": HEADS, "n_layers": LAYERS, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps(params | {"vocab_size": -1}))
    write_tokenizer(folder / "tokenizer.model")
    return path


def _fill(path: Path, dtypes: dict[str, torch.dtype]) -> None:
    """Put small random numbers where torch.save left room; the same block again and again, shifted."""
    noise = torch.randn(_BLOCK_BYTES // 2, generator=torch.Generator().manual_seed(0)) * 0.02
    blocks = {dtype: noise.to(dtype).numpy() for dtype in set(dtypes.values())}
    offsets = offsets_of(path)
    with path.open("r+b") as file:
        for name, (offset, count) in offsets.items():
            file.seek(offset)
            ones = name.endswith("norm.weight") or "layer_norm" in name or "original0" in name
            block = np.ones_like(blocks[dtypes[name]]) if ones else blocks[dtypes[name]]
            while count:
                part = block[: min(count, block.size)]
                file.write(part.tobytes())
                count -= part.size


def offsets_of(path: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor of `model` is in the file, and its number of elements."""
    with FakeTensorMode(), torch.serialization.safe_globals([argparse.Namespace]):
        model = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return {name: (value.untyped_storage()._checkpoint_offset, value.numel()) for name, value in model.items()}


def write_tokenizer(path: Path) -> None:
    """Take the tests' small tokenizer and fill it up to LLaMA's number of pieces."""
    small = TOKENIZER.read_bytes()
    model = parse_bpe_model(small, source=str(TOKENIZER))
    filler = [Piece(f"\ue000{index}", -1e6, NORMAL) for index in range(VOCABULARY - len(model.pieces))]
    path.write_bytes(serialise_bpe_model(dataclasses.replace(model, pieces=[*model.pieces, *filler])))
