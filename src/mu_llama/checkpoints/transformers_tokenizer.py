"""A SentencePiece tokenizer in the files that transformers' own loader reads, beside the original."""

from __future__ import annotations

from pathlib import Path

from transformers import AddedToken, LlamaTokenizer

from mu_llama.checkpoints.sentencepiece_file import CONTROL, NORMAL, USER_DEFINED, BpeModel, parse_bpe_model
from mu_llama.errors import CheckpointError


def write_transformers_tokenizer(folder: Path, content: bytes, *, source: str) -> None:
    """Write tokenizer.json and tokenizer_config.json, so that nobody needs protobuf to open the folder.

    Texts that begin with a space get one token less there than from SentencePiece; this package reads the original.

    Args:
        folder: where.
        content: of a `tokenizer.model`; one that isn't of LLaMA's kind is left as it is.
        source: for error messages.
    """
    try:
        model = parse_bpe_model(content, source=source)
    except CheckpointError:
        return
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
