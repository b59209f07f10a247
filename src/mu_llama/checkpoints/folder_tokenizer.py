"""The tokenizer of a Hugging Face LLaMA folder: of the files that are there, the one that fits the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama.checkpoints.json_files import read_json
from mu_llama.checkpoints.sentencepiece_file import (
    CONTROL,
    SPACE,
    UNUSED,
    USER_DEFINED,
    Piece,
    append_pieces,
    read_piece_texts,
)
from mu_llama.checkpoints.spec import FAST_TOKENIZER_FILE, SENTENCEPIECE_FILE, TokenizerFile
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

_ADDED_FILE, _SETTINGS_FILE = "added_tokens.json", "tokenizer_config.json"


@dataclass(frozen=True)
class _Candidate:
    """A tokenizer that the folder offers."""

    file: TokenizerFile
    """How it is read."""
    num_tokens: int
    """How many ids it knows."""


def find_tokenizer(folder: Path, *, num_embeddings: int) -> TokenizerFile:
    """Find the tokenizer that fits: with as many tokens as there are embeddings, else the largest that isn't larger.

    Of two that fit alike SentencePiece, the published system's own, comes first. Tokens that were added to it (by
    added_tokens.json, tokenizer_config.json or tokenizer.json) belong to it. Embeddings are often padded beyond the
    tokenizer; a tokenizer with more tokens than embeddings is another LLaMA's.

    Args:
        folder: holds tokenizer.model, tokenizer.json, or both.
        num_embeddings: rows of the LLaMA's embeddings.

    Raises:
        CheckpointError: if there is none, none fits, or none can be read.
    """
    offered: list[_Candidate] = []
    problem: CheckpointError | None = None
    for name, read in ((SENTENCEPIECE_FILE, _sentencepiece), (FAST_TOKENIZER_FILE, _fast)):
        if not (folder / name).is_file():
            continue
        refuse_lfs_pointer(folder / name)
        try:
            offered += read(folder / name, num_embeddings)
        except CheckpointError as error:
            problem = problem or error
        if any(candidate.num_tokens == num_embeddings for candidate in offered):
            break
    fitting = [candidate for candidate in offered if candidate.num_tokens <= num_embeddings]
    if fitting:
        return max(fitting, key=lambda candidate: candidate.num_tokens).file  # the first of the largest
    if problem is not None:
        raise problem
    if offered:
        sizes = " and ".join(f"{candidate.file.name} with {candidate.num_tokens} tokens" for candidate in offered)
        raise CheckpointError(
            f"{folder}: holds {sizes}, the LLaMA has {num_embeddings} embeddings; expected the tokenizer that came "
            "with it"
        )
    raise CheckpointError(
        f"{folder}: no {SENTENCEPIECE_FILE} or {FAST_TOKENIZER_FILE}; copy the LLaMA's tokenizer there"
    )


def _sentencepiece(path: Path, num_embeddings: int) -> Iterator[_Candidate]:
    """SentencePiece's file with the tokens that were added, and as it is."""
    texts = read_piece_texts(path.read_bytes(), source=str(path))
    plain = _Candidate(TokenizerFile(SENTENCEPIECE_FILE, str(path), path.read_bytes), len(texts))
    pieces = [] if len(texts) >= num_embeddings else _added_pieces(path.parent, texts)
    if pieces and len(texts) + len(pieces) <= num_embeddings:
        file = TokenizerFile(SENTENCEPIECE_FILE, str(path), lambda: append_pieces(path.read_bytes(), pieces))
        yield _Candidate(file, len(texts) + len(pieces))
    yield plain


def _fast(path: Path, _: int) -> Iterator[_Candidate]:
    content = read_json(path)
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict | list):
        raise CheckpointError(f"{path}: has no vocabulary; expected a Hugging Face tokenizer: download it again")
    words = set(vocabulary) if isinstance(vocabulary, dict) else {entry[0] for entry in vocabulary}
    words |= {text for text, _ in _listed(content.get("added_tokens")).values()}
    yield _Candidate(TokenizerFile(FAST_TOKENIZER_FILE, str(path), path.read_bytes), len(words))


def _added_pieces(folder: Path, texts: list[str]) -> list[Piece]:
    """The tokens behind the last piece, in order of their ids; ids that nobody names become unused pieces."""
    added = {index: token for index, token in _added_tokens(folder).items() if index >= len(texts)}
    known, pieces = set(texts), list[Piece]()
    for index in range(len(texts), max(added, default=-1) + 1):
        text, is_special = added.get(index, ("", True))
        word = text if is_special else text.replace(" ", SPACE)
        if not word or word in known:
            pieces.append(Piece(f"[UNUSED{index}]", 0.0, UNUSED))
        else:
            pieces.append(Piece(word, 0.0, CONTROL if is_special else USER_DEFINED))
        known.add(pieces[-1].text)
    return pieces


def _added_tokens(folder: Path) -> dict[int, tuple[str, bool]]:
    """Id to text, and whether it is special, of every token that the folder's files say was added."""
    tokens: dict[int, tuple[str, bool]] = {}
    if (folder / _ADDED_FILE).is_file():
        for text, index in read_json(folder / _ADDED_FILE).items():
            if isinstance(index, int):
                tokens[index] = (text, True)
    if (folder / FAST_TOKENIZER_FILE).is_file():
        tokens |= _listed(read_json(folder / FAST_TOKENIZER_FILE).get("added_tokens"))
    if (folder / _SETTINGS_FILE).is_file():
        decoder = read_json(folder / _SETTINGS_FILE).get("added_tokens_decoder")
        entries = decoder.items() if isinstance(decoder, dict) else ()
        tokens |= _listed([{**entry, "id": int(key)} for key, entry in entries if key.isdecimal()])
    return tokens


def _listed(entries: Any) -> dict[int, tuple[str, bool]]:
    """Id to text, and whether it is special, of a list as tokenizer.json has it."""
    tokens: dict[int, tuple[str, bool]] = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get("id"), int) and isinstance(entry.get("content"), str):
            tokens[entry["id"]] = (entry["content"], bool(entry.get("special", True)))
    return tokens
