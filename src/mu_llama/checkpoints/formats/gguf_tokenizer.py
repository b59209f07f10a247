"""A LLaMA's tokenizer as GGUF metadata, to and from the file it usually is.

GGUF's model "llama" is SentencePiece (`tokenizer.model`); "gpt2" is byte-level BPE (`tokenizer.json`), whose way
of splitting a text into words has a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mu_llama.checkpoints.formats.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    BpeModel,
    Piece,
    parse_bpe_model,
    serialise_bpe_model,
)
from mu_llama.checkpoints.spec import FAST_TOKENIZER_FILE, SENTENCEPIECE_FILE, TokenizerFile
from mu_llama.errors import CheckpointError
from mu_llama.model.config import LlamaConfig

_KEY = "tokenizer.ggml."
_PAD_SCORE = -1000.0
_KINDS = {0, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
# GGUF's name for a way of splitting to tokenizer.json's description of it.
_SPLITTING: dict[str, dict[str, Any]] = {
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]},
    "gpt-2": _BYTE_LEVEL,
    "llama-bpe": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _LLAMA3_WORDS}, "behavior": "Isolated", "invert": False},
            _BYTE_LEVEL | {"use_regex": False},
        ],
    },
}
# These take a word that is in the vocabulary whole, whatever the merges say, and start with a begin token.
_WHOLE_WORDS = {"llama-bpe"}


def read_tokenizer(fields: Mapping[str, Any], *, source: str) -> TokenizerFile:
    """Describe the tokenizer in the metadata as the file that gives the same ids.

    Args:
        fields: all metadata of a GGUF.
        source: the file to name in errors.

    Raises:
        CheckpointError: if metadata is missing, or the tokenizer is of another kind.
    """
    kind, splitting = fields.get(_KEY + "model"), fields.get(_KEY + "pre")
    if kind == "llama":
        _check_lists(fields, ("tokens", "token_type", "scores"), source=source)
        return TokenizerFile(SENTENCEPIECE_FILE, source, lambda: _to_sentencepiece(fields))
    if kind == "gpt2" and splitting in _SPLITTING:
        _check_lists(fields, ("tokens", "token_type"), source=source)
        _check_lists(fields, ("merges",), source=source)
        return TokenizerFile(FAST_TOKENIZER_FILE, source, lambda: _to_json(fields, splitting))
    raise CheckpointError(
        f"{source}: tokenizer {kind!r} with pre-tokenizer {splitting!r}; expected 'llama', or 'gpt2' with "
        f"{', '.join(_SPLITTING)}: take another GGUF of this LLaMA"
    )


def tokenizer_fields(tokenizer: TokenizerFile, config: LlamaConfig) -> dict[str, Any]:
    """Write a tokenizer as GGUF metadata, padded to the number of rows of the embedding.

    Raises:
        CheckpointError: if it doesn't fit the LLaMA, or GGUF has no name for its kind.
    """
    convert = _from_sentencepiece if tokenizer.name == SENTENCEPIECE_FILE else _from_json
    fields = convert(tokenizer, config)
    missing = config.vocab_size - len(fields["tokens"])
    if missing < 0:
        raise CheckpointError(
            f"{tokenizer.source}: {len(fields['tokens'])} tokens, the LLaMA has {config.vocab_size}; "
            f"expected the {tokenizer.name} that came with it"
        )
    fields["tokens"] += [f"[PAD{config.vocab_size - index}]" for index in range(missing, 0, -1)]
    fields["token_type"] += [UNUSED] * missing
    if "scores" in fields:
        fields["scores"] += [_PAD_SCORE] * missing
    return {_KEY + name: value for name, value in fields.items()}


def _check_lists(fields: Mapping[str, Any], names: tuple[str, ...], *, source: str) -> None:
    """Check that each is a list, and that all are as long as the first."""
    lists = [fields.get(_KEY + name) for name in names]
    whole = all(isinstance(entries, list) and len(entries) == len(lists[0] or []) for entries in lists)
    if not whole or not set(fields.get(_KEY + "token_type", ())) <= _KINDS:
        raise CheckpointError(f"{source}: metadata lacks the tokenizer's {' or '.join(names)}; download it again")


def _to_sentencepiece(fields: Mapping[str, Any]) -> bytes:
    words, kinds = fields[_KEY + "tokens"], fields[_KEY + "token_type"]
    ends = {name: fields.get(f"{_KEY}{name}_token_id") for name in ("bos", "eos")}
    pieces = []
    for index, (word, kind, score) in enumerate(zip(words, kinds, fields[_KEY + "scores"], strict=True)):
        if index in ends.values():
            kind = CONTROL
        # llama.cpp looks for these in the text before it changes spaces.
        pieces.append(Piece(word.replace(" ", SPACE) if kind == USER_DEFINED else word, score, kind))
    marks = {name: words[index] for name, index in ends.items() if index is not None and index < len(words)}
    return serialise_bpe_model(BpeModel(pieces, **marks, space_in_front=fields.get(_KEY + "add_space_prefix", True)))


def _from_sentencepiece(tokenizer: TokenizerFile, config: LlamaConfig) -> dict[str, Any]:
    model = parse_bpe_model(tokenizer.read(), source=tokenizer.source)
    bos, eos = model.find(model.bos), model.find(model.eos)
    if bos is None or eos is None:
        raise CheckpointError(f"{tokenizer.source}: has no {model.bos!r} or {model.eos!r}; expected LLaMA's tokenizer")
    unknown = next((index for index, piece in enumerate(model.pieces) if piece.kind == UNKNOWN), 0)
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [p.text.replace(SPACE, " ") if p.kind == USER_DEFINED else p.text for p in model.pieces],
        "scores": [piece.score for piece in model.pieces],
        "token_type": [piece.kind for piece in model.pieces],
        "bos_token_id": bos,
        "eos_token_id": config.eos_token_ids[0],
        "unknown_token_id": unknown,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": model.space_in_front,
    }


def _to_json(fields: Mapping[str, Any], splitting: str) -> bytes:
    words = fields[_KEY + "tokens"]
    added = [
        {"id": index, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": kind == CONTROL}
        for index, (word, kind) in enumerate(zip(words, fields[_KEY + "token_type"], strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]  # fmt: skip
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": splitting in _WHOLE_WORDS,
        "vocab": {word: index for index, word in enumerate(words)},
        "merges": [merge.split(" ", 1) for merge in fields[_KEY + "merges"]],
    }  # fmt: skip
    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": _SPLITTING[splitting], "post_processor": None,
        "decoder": _BYTE_LEVEL | {"add_prefix_space": True}, "model": model,
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False).encode()


def _from_json(tokenizer: TokenizerFile, config: LlamaConfig) -> dict[str, Any]:
    try:
        content = json.loads(tokenizer.read())
        splitting = _splitting_of(content, tokenizer)
        words: dict[int, tuple[str, int]] = {index: (word, NORMAL) for word, index in content["model"]["vocab"].items()}
        for token in content["added_tokens"]:
            words[token["id"]] = (token["content"], CONTROL if token["special"] else USER_DEFINED)
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{tokenizer.source}: not a whole tokenizer.json ({error!r}); get it again") from error
    if not config.eos_token_ids:
        raise CheckpointError(f"{tokenizer.source}: config.json names no eos_token_id; expected the LLaMA's: add it")
    listed = [words.get(index, (f"[PAD{index}]", UNUSED)) for index in range(max(words) + 1)]
    fields = {
        "model": "gpt2",
        "pre": splitting,
        "tokens": [word for word, _ in listed],
        "token_type": [kind for _, kind in listed],
        "merges": merges,
        "eos_token_id": config.eos_token_ids[0],
        # SmolLM's prompts begin without a token of their own.
        "add_bos_token": splitting in _WHOLE_WORDS,
        "add_eos_token": False,
        "add_space_prefix": False,
    }
    return fields if config.bos_token_id is None else fields | {"bos_token_id": config.bos_token_id}


def _splitting_of(content: dict[str, Any], tokenizer: TokenizerFile) -> str:
    """Find GGUF's name for the way a `tokenizer.json` splits."""
    model = content["model"]
    if model.get("byte_fallback"):
        raise CheckpointError(
            f"{tokenizer.source}: is SentencePiece as tokenizer.json; expected {SENTENCEPIECE_FILE} for GGUF: "
            "put the LLaMA's beside it"
        )
    plain = model["type"] == "BPE" and not content.get("normalizer") and not model.get("dropout")
    odd = [token for token in content["added_tokens"] if token["lstrip"] or token["rstrip"] or token["single_word"]]
    for name, splitting in _SPLITTING.items():
        whole_words = bool(model.get("ignore_merges")) == (name in _WHOLE_WORDS)
        if plain and not odd and whole_words and _essence(content["pre_tokenizer"]) == _essence(splitting):
            return name
    raise CheckpointError(
        f"{tokenizer.source}: splits text in a way that GGUF has no name for here; expected the tokenizer.json of "
        f"{', '.join(_SPLITTING)}"
    )


def _essence(splitting: Any) -> Any:
    """Leave out what doesn't change ids, and put in what older files leave out."""
    if isinstance(splitting, list):
        return [_essence(part) for part in splitting]
    if not isinstance(splitting, dict):
        return splitting
    whole = {"use_regex": True} | splitting if splitting.get("type") == "ByteLevel" else splitting
    return {name: _essence(part) for name, part in whole.items() if name != "trim_offsets"}
