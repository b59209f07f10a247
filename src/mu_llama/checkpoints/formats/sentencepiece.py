"""SentencePiece's `tokenizer.model` taken apart and put together, without the protobuf library.

Field numbers are those of sentencepiece_model.proto in google/sentencepiece.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mu_llama.checkpoints.formats.format import Detection, FileHead, Format, present_parts
from mu_llama.errors import CheckpointError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of a piece; GGUF uses the same numbers."""
SPACE = "\u2581"
"""What SentencePiece writes for a space."""
_UNIGRAM, _BPE = 1, 2
_BOS, _EOS = "<s>", "</s>"
# A piece, in it the length of its text, the text, and its score.
_FIRST_PIECE = re.compile(rb"\n.\n(.)", re.DOTALL)
_SCORE_TAG = b"\x15"

_NOT_A_MODEL = "not a SentencePiece model; expected LLaMA's tokenizer.model"


def _recognise(file: FileHead) -> Detection | None:
    match = _FIRST_PIECE.match(file.head)
    if match is None or not file.head[match.end() + match[1][0] :].startswith(_SCORE_TAG):
        return None
    return Detection(file.path, TOKENIZER_KIND, "SentencePiece", present_parts(tokenizer=True))


TOKENIZER_KIND = "tokenizer"
FORMAT = Format(TOKENIZER_KIND, "a tokenizer alone", recognise_file=_recognise, suffix=".model")


@dataclass(frozen=True)
class Piece:
    """An entry of the vocabulary; its id is its place."""

    text: str
    """With U+2581 for a space."""
    score: float
    """Pieces of higher score are joined first."""
    kind: int
    """One of the constants of this file."""


@dataclass(frozen=True)
class BpeModel:
    """All of a SentencePiece BPE model that takes part in encoding."""

    pieces: list[Piece]
    """The vocabulary."""
    bos: str = _BOS
    """Text of the begin token."""
    eos: str = _EOS
    """Text of the end token."""
    space_in_front: bool = True
    """Whether a text gets a leading space."""

    def find(self, text: str) -> int | None:
        """Find the id of a control token."""
        return next((i for i, p in enumerate(self.pieces) if p.text == text and p.kind == CONTROL), None)


def parse_bpe_model(data: bytes, *, source: str) -> BpeModel:
    """Read a `tokenizer.model`.

    Raises:
        CheckpointError: if it is damaged, or isn't of LLaMA's kind: BPE on the text as it is.
    """
    try:
        fields = list(_fields(data))
        pieces = [_piece(content) for number, content in fields if number == 1]
        trainer = dict(_fields(b"".join(content for number, content in fields if number == 2)))
        normaliser = dict(_fields(b"".join(content for number, content in fields if number == 3)))
        text = {number: bytes(trainer.get(number, b"")).decode() for number in (46, 47)}
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise CheckpointError(f"{source}: {_NOT_A_MODEL}") from error
    changes_text = normaliser.get(2) or normaliser.get(4, 1) or not normaliser.get(5, 1) or trainer.get(24)
    if trainer.get(3, _UNIGRAM) != _BPE or changes_text or not pieces:
        raise CheckpointError(f"{source}: not of LLaMA's kind; expected SentencePiece BPE that keeps the text as it is")
    return BpeModel(pieces, text[46] or _BOS, text[47] or _EOS, space_in_front=bool(normaliser.get(3, 1)))


def read_piece_texts(data: bytes, *, source: str) -> list[str]:
    """Read the texts of a `tokenizer.model`'s pieces, whatever kind of SentencePiece it is.

    Raises:
        CheckpointError: if it is damaged or something else.
    """
    try:
        texts = [_piece(content).text for number, content in _fields(data) if number == 1]
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise CheckpointError(f"{source}: {_NOT_A_MODEL}") from error
    if not texts:
        raise CheckpointError(f"{source}: {_NOT_A_MODEL}")
    return texts


def append_pieces(data: bytes, pieces: Sequence[Piece]) -> bytes:
    """Add pieces behind those of a `tokenizer.model`; texts without them are encoded as before."""
    return data + b"".join(_chunk(1, _piece_fields(piece)) for piece in pieces)  # of a list, protobuf joins the parts


def serialise_bpe_model(model: BpeModel) -> bytes:
    """Write a `tokenizer.model` that SentencePiece encodes with as with the original."""
    parts = [_chunk(1, _piece_fields(piece)) for piece in model.pieces]
    byte_fallback = any(piece.kind == BYTE for piece in model.pieces)
    unknown = next((piece.text for piece in model.pieces if piece.kind == UNKNOWN), "<unk>")
    trainer = _number(3, _BPE) + _number(4, len(model.pieces)) + _number(35, byte_fallback)
    trainer += _chunk(45, unknown.encode()) + _chunk(46, model.bos.encode()) + _chunk(47, model.eos.encode())
    normaliser = _chunk(1, b"identity") + _number(3, model.space_in_front) + _number(4, 0) + _number(5, 1)
    return b"".join(parts) + _chunk(2, trainer) + _chunk(3, normaliser)


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    return Piece(
        text=fields.get(1, b"").decode(),
        score=struct.unpack("<f", fields.get(2, bytes(4)))[0],
        kind=fields.get(3, NORMAL),
    )


def _piece_fields(piece: Piece) -> bytes:
    return _chunk(1, piece.text.encode()) + _SCORE_TAG + struct.pack("<f", piece.score) + _number(3, piece.kind)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Take a protobuf message apart: field numbers with whole numbers or bytes."""
    at = 0
    while at < len(data):
        key, at = _read_number(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_number(data, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, at = _read_number(data, at)
        if kind not in (1, 2, 5) or at + size > len(data):
            raise ValueError("not a protobuf message")
        yield key >> 3, data[at : at + size]
        at += size


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _write_number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _write_number(field << 3) + _write_number(int(value))


def _chunk(field: int, content: bytes) -> bytes:
    return _write_number(field << 3 | 2) + _write_number(len(content)) + content
