"""Tokenizers, streams of text, stop texts and prompt templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.text.prompts import ALPACA_PUBLISHED, CHATML_MUSIC, TEMPLATES, Turn, template_by_name
from mu_llama.text.stop_strings import StopStringFilter
from mu_llama.text.tokenizer import FastTokenizer, TextStream, parse_fast_tokenizer, parse_sentencepiece


class Bytes:
    """A tokenizer whose ids are bytes."""

    vocab_size = 256
    eos_ids = frozenset[int]()

    def encode_prompt(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def without_special(self, text: str) -> str:
        return text


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


@pytest.mark.parametrize(
    ("written", "stop", "expected", "stopped"),
    [
        ("  Hello there. \n", (), "Hello there.", False),
        ("one STOP two", ("STOP",), "one", True),
        ("one STO two", ("STOP",), "one STO two", False),
        ("a\n\n### Instruction", ("\n\n###",), "a", True),
        ("both END and STOP", ("STOP", "END"), "both", True),
        ("ends in ST", ("STOP",), "ends in ST", False),
    ],
)
def test_answer_text(written: str, stop: tuple[str, ...], expected: str, stopped: bool) -> None:
    text = StopStringFilter(Bytes(), stop)
    pieces = []
    for token in written.encode():
        pieces.append(text.push(token))
        if text.stopped:
            break
    pieces.append(text.finish())
    assert "".join(pieces) == text.text == expected
    assert text.stopped == stopped


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


def test_templates_render_history() -> None:
    turns = [Turn("Q1", "A1"), Turn("Q2")]
    for template in TEMPLATES.values():
        text = template.render(turns)
        assert text.index("Q1") < text.index("A1") < text.index("Q2")
        assert text.startswith(template.render(turns[:1]) + "A1")
        assert text.endswith(template.between)
    assert "<built-in function input>" in ALPACA_PUBLISHED.render([Turn("{braces} stay")])
    assert "{braces} stay" in ALPACA_PUBLISHED.render([Turn("{braces} stay")])
    with pytest.raises(ValueError, match="earlier turn"):
        CHATML_MUSIC.render([Turn("Q1"), Turn("Q2")])
    with pytest.raises(ValueError, match="at least one"):
        CHATML_MUSIC.render([])
    with pytest.raises(ConfigError, match="chatml-music"):
        template_by_name("vicuna")
