"""The tokenizer of a Hugging Face LLaMA folder: found among its files, written for transformers' own loader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama.checkpoints.formats.format import Detection, FileHead, Format, present_parts, read_json
from mu_llama.checkpoints.formats.sentencepiece import (
    CONTROL,
    NORMAL,
    SPACE,
    TOKENIZER_KIND,
    UNUSED,
    USER_DEFINED,
    BpeModel,
    Piece,
    append_pieces,
    parse_bpe_model,
    read_piece_texts,
)
from mu_llama.checkpoints.spec import FAST_TOKENIZER_FILE, SENTENCEPIECE_FILE, TokenizerFile
from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer

_ADDED_FILE, _SETTINGS_FILE = "added_tokens.json", "tokenizer_config.json"


def _recognise(file: FileHead) -> Detection | None:
    if not file.head.startswith(b"{") or b'"added_tokens"' not in file.head or b'"version"' not in file.head:
        return None
    return Detection(file.path, TOKENIZER_KIND, "Hugging Face tokenizer", present_parts(tokenizer=True))


FORMAT = Format(TOKENIZER_KIND, "a tokenizer alone", recognise_file=_recognise)


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


def write_transformers_tokenizer(folder: Path, content: bytes, *, source: str) -> None:
    """Write tokenizer.json and tokenizer_config.json, so that nobody needs protobuf to open the folder.

    Texts that begin with a space get one token less there than from SentencePiece; this package reads the original.

    Args:
        folder: where.
        content: of a `tokenizer.model`; one that isn't of LLaMA's kind is left as it is.
        source: for error messages.

    Raises:
        CheckpointError: if transformers, which writes them, isn't installed.
    """
    try:
        model = parse_bpe_model(content, source=source)
    except CheckpointError:
        return
    try:
        from transformers import AddedToken, LlamaTokenizer
    except ImportError as error:
        raise CheckpointError(
            f"{folder}: a tokenizer for transformers is written with transformers, which isn't installed; run: "
            "pip install 'mu-llama[torch]'"
        ) from error
    vocabulary = {piece.text: index for index, piece in enumerate(model.pieces)}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=_merges(model, vocabulary), add_bos_token=True)
    ends = {tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token}
    tokenizer.add_tokens(
        [
            AddedToken(piece.text, special=piece.kind == CONTROL, normalized=False)
            for piece in model.pieces
            if piece.kind in (CONTROL, USER_DEFINED) and piece.text not in ends
        ]
    )
    tokenizer.save_pretrained(folder)


def _merges(model: BpeModel, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """List the pairs that join to each piece, likeliest piece first, as byte-pair encoding wants them."""
    pairs: list[tuple[float, str, str]] = []
    for piece in model.pieces:
        if piece.kind == NORMAL:
            halves = ((piece.text[:cut], piece.text[cut:]) for cut in range(1, len(piece.text)))
            known = [pair for pair in halves if pair[0] in vocabulary and pair[1] in vocabulary]
            known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
            pairs += [(-piece.score, left, right) for left, right in known]
    pairs.sort(key=lambda pair: pair[0])
    return [(left, right) for _, left, right in pairs]
