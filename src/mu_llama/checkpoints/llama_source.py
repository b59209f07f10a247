"""A LLaMA as its owner names it: Meta's folder, Hugging Face's, a GGUF file, or a hub id."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path

from mu_llama.checkpoints.detect import explain_wrong_role
from mu_llama.checkpoints.gguf import read_gguf_llama
from mu_llama.checkpoints.hugging_face import CONFIG_FILE, read_llama_folder
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.llama_names import parse_meta_name, rotary_rows_reordered
from mu_llama.checkpoints.meta_llama import PARAMS_FILE, find_meta_folder, read_meta_llama
from mu_llama.checkpoints.spec import SENTENCEPIECE_FILE, LlamaSpec
from mu_llama.errors import CheckpointError, ModelNotFoundError
from mu_llama.hub import fetch, is_hub_id
from mu_llama.text.prompts import PromptTemplate
from mu_llama.text.tokenizer import Tokenizer, parse_fast_tokenizer, parse_sentencepiece

_EXPECTED = "a Meta LLaMA folder, a Hugging Face LLaMA folder, a GGUF file or a hub id such as huggyllama/llama-7b"
_DESCRIBED = ("*.json", "tokenizer.model")
# Embeddings are padded to a multiple of something, which makes a vocabulary hardly larger unless it is small.
_MOST_PADDED, _PADDED_TO = 2, 256


def read_llama(where: str | Path, *, weights: Mapping[str, LazyTensor] | None = None) -> LlamaSpec:
    """Describe a LLaMA.

    Args:
        where: folder, file or hub id.
        weights: under Meta's names, where they come out of a checkpoint; then only sizes and tokenizer are needed
            here, and weights that are here too are left alone.

    Raises:
        ModelNotFoundError: if nothing is there.
        CheckpointError: if it is something else, or its files are damaged or don't fit together.
    """
    path = _find(where, with_weights=weights is None)
    wrong = explain_wrong_role(path, "llama")
    if wrong is not None:
        raise CheckpointError(wrong)
    if path.name == PARAMS_FILE or (path.is_dir() and _holds_params(path)):
        return read_meta_llama(find_meta_folder(path), weights=weights)
    if path.is_dir() and (path / CONFIG_FILE).is_file():
        llama = read_llama_folder(path, with_weights=weights is None)
    else:
        llama = read_gguf_llama(path)
    return llama if weights is None else _with_weights(llama, weights)


def _find(where: str | Path, *, with_weights: bool) -> Path:
    path = Path(where).expanduser()
    if path.exists():
        return path
    if not is_hub_id(str(where)):
        raise ModelNotFoundError(f"{where}: no such file or folder; expected {_EXPECTED}")
    patterns = (*_DESCRIBED, "*.safetensors") if with_weights else _DESCRIBED
    folder = fetch(str(where), patterns=patterns, expected=_EXPECTED)
    if with_weights and not any(folder.glob("*.safetensors")):
        folder = fetch(
            str(where), patterns=(*_DESCRIBED, "pytorch_model*.bin", "consolidated*.pth"), expected=_EXPECTED
        )
    return folder


def _holds_params(folder: Path) -> bool:
    """Whether this is Meta's layout; a folder that has both kinds of description is what its weights are."""
    if (folder / PARAMS_FILE).is_file():
        return any(folder.glob("consolidated*.pth")) or not (folder / CONFIG_FILE).is_file()
    return not (folder / CONFIG_FILE).is_file() and any(folder.glob(f"*/{PARAMS_FILE}"))


def _with_weights(llama: LlamaSpec, weights: Mapping[str, LazyTensor]) -> LlamaSpec:
    tensors = {}
    for name, value in weights.items():
        parsed = parse_meta_name(name)
        assert parsed is not None, "checked when read"
        tensors[parsed.hugging_face] = rotary_rows_reordered(value, parsed.module, llama.config, name=name)
    return dataclasses.replace(llama, tensors=tensors)


def open_tokenizer(llama: LlamaSpec, template: PromptTemplate) -> Tokenizer:
    """Make the LLaMA's tokenizer, with the begin and end tokens that the template asks for.

    Raises:
        CheckpointError: if it is damaged or belongs to another LLaMA.
    """
    file, config = llama.tokenizer, llama.config
    own_ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    own_ends = [token for token in own_ends if token is not None]
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
    if num_embeddings > max(_MOST_PADDED * num_tokens, -(-num_tokens // _PADDED_TO) * _PADDED_TO):
        warnings.warn(
            f"{file.source}: only {num_tokens} tokens, the LLaMA has {num_embeddings} embeddings; "
            f"check that this {file.name} came with it",
            stacklevel=2,
        )
    return tokenizer
