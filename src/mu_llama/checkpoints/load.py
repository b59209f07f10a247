"""From what a user names to a `ModelSpec`: its parts found and described; only headers are read."""

from __future__ import annotations

import difflib
import importlib.resources
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mu_llama.checkpoints.choose import choose_parts, explain_wrong_role, llama_at, role_of
from mu_llama.checkpoints.detect import detect, scan_tree
from mu_llama.checkpoints.embedded import PACKAGED, Report, provide_llama
from mu_llama.checkpoints.formats import format_of
from mu_llama.checkpoints.formats.encoder import read_encoder_folder
from mu_llama.checkpoints.formats.format import Companions
from mu_llama.checkpoints.formats.meta import FORMAT as META_FORMAT
from mu_llama.checkpoints.formats.meta import holds_meta_llama
from mu_llama.checkpoints.formats.onnx_graph import GRAPH_WEIGHTS_FILE
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.spec import SENTENCEPIECE_FILE, EncoderSpec, LlamaSpec, ModelSpec
from mu_llama.errors import CheckpointError, ConfigError, ModelNotFoundError
from mu_llama.hub import fetch, is_hub_id
from mu_llama.text.prompts import PromptTemplate
from mu_llama.text.tokenizer import Tokenizer, parse_fast_tokenizer, parse_sentencepiece

EMBEDDED = ("mini",)
"""Models that ship inside the package."""
_HUB_FILES = (
    "*.json", "*.safetensors", "*.onnx", f"*{GRAPH_WEIGHTS_FILE}", "*checkpoint.pth", "*consolidated.*.pth",
    "*tokenizer.model", "*.md",
)  # fmt: skip
_MODEL = "mini, a mu-llama model folder, a published checkpoint.pth, the folder it is in, or a hub id"
_LLAMA = "a Meta LLaMA folder, a Hugging Face LLaMA folder, a GGUF file or a hub id such as huggyllama/llama-7b"
_DESCRIBED = ("*.json", "tokenizer.model")
# Embeddings are padded to a multiple of something, which makes a vocabulary hardly larger unless it is small.
_MAX_PADDED, _PADDED_TO = 2, 256


def embedded_folder(name: str) -> Path:
    """Where an embedded model's folder is inside the installed package."""
    return Path(str(importlib.resources.files("mu_llama"))) / "embedded" / name


def find_parts(
    model: str | Path,
    *,
    llama: str | Path | None = None,
    encoder: str | Path | None = None,
    home: Path,
    report: Report = lambda _: None,
) -> ModelSpec:
    """Find all parts of a model; only headers are read.

    Args:
        model: `mini`, a mu-llama model folder, a published checkpoint (.pth), a folder tree that holds one, or a
            hub id.
        llama: Meta, Hugging Face or GGUF LLaMA or hub id beside a published checkpoint. Where the checkpoint
            holds the LLaMA itself, a params.json with its tokenizer.model is enough, and may lie beside it.
        encoder: MERT folder or hub id beside a published checkpoint that holds no MERT.
        home: cache folder, for the embedded model's LLaMA.
        report: called with one line when a slow step starts.

    Raises:
        ModelNotFoundError: if nothing of that name is there.
        CheckpointError: if the files don't fit together.
        ConfigError: if an argument is missing or does not apply.
    """
    path = embedded_folder(str(model)) if str(model) in EMBEDDED else Path(model).expanduser()
    if not path.exists():
        path = _model_from_hub(str(model))
    if path.is_dir() and role_of(detect(path)) != "model":
        named = {"llama": llama, "encoder": encoder}
        given: list[Any] = [role for role, value in named.items() if value is not None]
        chosen = choose_parts(scan_tree(path), path, given=given)
        path, llama, encoder = chosen.model, llama or chosen.llama, encoder or chosen.encoder
    wrong = explain_wrong_role(path, "model")
    if wrong is not None:
        raise CheckpointError(wrong)
    weight_format = format_of(detect(path).kind)
    assert weight_format is not None, "its role is a model"
    assert weight_format.read_model is not None, "every format whose role is a model has read_model"
    if weight_format.is_closed and (llama is not None or encoder is not None):
        raise ConfigError(f"model {str(model)!r} brings its own LLaMA and encoder; leave out --llama and --encoder")
    return weight_format.read_model(path, _companions(llama, encoder, home=home, report=report))


def _companions(
    llama: str | Path | None, encoder: str | Path | None, *, home: Path, report: Report = lambda _: None
) -> Companions:
    return Companions(llama, encoder, read_llama, _read_encoder, partial(_packaged_llama, home=home, report=report))


def _read_encoder(where: str | Path) -> EncoderSpec:
    wrong = explain_wrong_role(Path(where), "encoder")
    if wrong is not None:
        raise CheckpointError(wrong)
    return read_encoder_folder(where)


def _packaged_llama(name: str, *, home: Path, report: Report) -> Path | None:
    return provide_llama(PACKAGED[name], home, report=report) if name in PACKAGED else None


def _model_from_hub(name: str) -> Path:
    near = difflib.get_close_matches(name, EMBEDDED, n=1)
    if not is_hub_id(name) or near:
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelNotFoundError(f"no model {name!r}: expected {_MODEL}{hint}")
    return fetch(name, patterns=_HUB_FILES, expected=_MODEL)


def read_llama(where: str | Path, *, weights: Mapping[str, LazyTensor] | None = None) -> LlamaSpec:
    """Describe a LLaMA.

    Args:
        where: Meta's folder, Hugging Face's, a GGUF file, or a hub id.
        weights: under Meta's names, where they come out of a checkpoint; then `where` only gives sizes and
            tokenizer, and weights in it are not read.

    Raises:
        ModelNotFoundError: if nothing is there.
        CheckpointError: if it is something else, or its files are damaged or don't fit together.
    """
    path = _find_llama(where, with_weights=weights is None)
    wrong = explain_wrong_role(path, "llama")
    if wrong is not None:
        raise CheckpointError(wrong)
    weight_format = META_FORMAT if holds_meta_llama(path) else format_of(llama_at(path).kind)
    assert weight_format is not None, "its role is a LLaMA"
    assert weight_format.read_llama is not None, "every format whose role is a LLaMA has read_llama"
    return weight_format.read_llama(path, weights)


def _find_llama(where: str | Path, *, with_weights: bool) -> Path:
    path = Path(where).expanduser()
    if path.exists():
        return path
    if not is_hub_id(str(where)):
        raise ModelNotFoundError(f"{where}: no such file or folder; expected {_LLAMA}")
    patterns: tuple[str, ...] = (*_DESCRIBED, "*.safetensors") if with_weights else _DESCRIBED
    folder = fetch(str(where), patterns=patterns, expected=_LLAMA)
    if with_weights and not any(folder.glob("*.safetensors")):
        patterns = (*_DESCRIBED, "pytorch_model*.bin", "consolidated*.pth")
        folder = fetch(str(where), patterns=patterns, expected=_LLAMA)
    return folder


def open_tokenizer(llama: LlamaSpec, template: PromptTemplate) -> Tokenizer:
    """Make the LLaMA's tokenizer, with the begin and end tokens that the template asks for.

    Raises:
        CheckpointError: if it is damaged or belongs to another LLaMA.
    """
    file, config = llama.tokenizer, llama.config
    own_ends = config.eos_token_ids
    tokenizer: Tokenizer
    if file.name == SENTENCEPIECE_FILE:
        tokenizer = parse_sentencepiece(file.read(), eos_ids=own_ends, source=file.source)
    else:
        tokenizer = parse_fast_tokenizer(
            file.read(),
            eos_tokens=template.end_tokens or own_ends,
            bos_id=None if template.end_tokens else config.bos_token_id,
            source=file.source,
        )
    num_tokens, num_embeddings = tokenizer.vocab_size, int(config.vocab_size)
    if num_tokens > num_embeddings or (file.fills_embeddings and num_tokens < num_embeddings):
        raise CheckpointError(
            f"{file.source}: {num_tokens} tokens, the LLaMA has {num_embeddings}; "
            f"expected the {file.name} that came with it"
        )
    if num_embeddings > max(_MAX_PADDED * num_tokens, -(-num_tokens // _PADDED_TO) * _PADDED_TO):
        warnings.warn(
            f"{file.source}: only {num_tokens} tokens, the LLaMA has {num_embeddings} embeddings; "
            f"check that this {file.name} came with it",
            stacklevel=2,
        )
    return tokenizer
