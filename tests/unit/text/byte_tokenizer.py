"""A tokenizer whose ids are bytes."""

from __future__ import annotations

from collections.abc import Sequence


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
