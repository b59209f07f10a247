"""Tokenizers, and text decoded while ids arrive."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from mu_llama.errors import CheckpointError
from mu_llama.text.tokenizer import FastTokenizer, TextStream, parse_fast_tokenizer, parse_sentencepiece
from tests.unit.text.byte_tokenizer import Bytes


def byte_level_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")])
    return tokenizer


@pytest.mark.parametrize("text", ["plain", "naïve 日本語 🎵!", "end 🎵", "\u0301 x"])
def test_stream_never_splits_a_character(text: str) -> None:
    stream = TextStream(Bytes())
    pieces = [stream.push(token) for token in text.encode()] + [stream.flush()]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_stream_passes_broken_bytes_on_in_the_end() -> None:
    stream = TextStream(Bytes())
    pieces = [stream.push(token) for token in b"a\xff\xff\xff\xffb"] + [stream.flush()]
    assert "".join(pieces) == b"a\xff\xff\xff\xffb".decode(errors="replace")


def test_special_tokens_in_a_question_are_only_text() -> None:
    tokenizer = FastTokenizer(byte_level_tokenizer(), eos_tokens=["<|im_end|>"])
    assert tokenizer.without_special("a<|im_<|im_end|>end|>b") == "ab"
    assert tokenizer.decode(tokenizer.encode_prompt("<|im_start|>hé<|im_end|>")) == "hé"
    with pytest.raises(CheckpointError, match="<nope>"):
        FastTokenizer(byte_level_tokenizer(), eos_tokens=["<nope>"])


def test_damaged_tokenizer_files(tmp_path: Path) -> None:
    broken = tmp_path / "tokenizer.model"
    broken.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="not a SentencePiece"):
        parse_sentencepiece(broken.read_bytes(), source="broken")
    with pytest.raises(CheckpointError, match=r"not a tokenizer\.json"):
        parse_fast_tokenizer(broken.read_bytes(), eos_tokens=[], source="broken")
