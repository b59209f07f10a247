"""Text to token ids and back, with the two tokenizer formats of LLaMA models: SentencePiece and Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mu_llama.errors import CheckpointError, QuestionError

REPLACEMENT = "\ufffd"


class Tokenizer(Protocol):
    """Interface of a tokenizer, as generation uses it."""

    vocab_size: int
    """Number of token ids."""
    eos_ids: frozenset[int]
    """Ids that end an answer."""

    def encode(self, text: str) -> list[int]:
        """Turn text into ids with neither begin nor end token."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Turn a whole prompt into ids, with the begin token in front where the model expects one."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text, without special tokens."""
        ...

    def without_special(self, text: str) -> str:
        """Remove every control token that `encode_prompt` would parse out of the text."""
        ...


class SentencePieceTokenizer:
    """Meta's `tokenizer.model`: begin token in front, one end token unless the LLaMA has more.

    Args:
        processor: a `sentencepiece.SentencePieceProcessor`.
        eos_ids: what ends an answer besides its own end token; only control tokens count.
    """

    def __init__(self, processor: Any, *, eos_ids: Sequence[int] = ()) -> None:
        self._processor = processor
        self.vocab_size: int = processor.vocab_size()
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()
        more = {token for token in eos_ids if 0 <= token < self.vocab_size and processor.is_control(token)}
        self.eos_ids = frozenset({self.eos_id} | more)

    def encode(self, text: str) -> list[int]:
        """Turn text into ids with neither begin nor end token."""
        return list(self._processor.encode(encodable(text)))

    def encode_prompt(self, text: str) -> list[int]:
        """Turn a prompt into ids with the begin token in front."""
        return [self.bos_id, *self.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text; ids of padding embeddings beyond the vocabulary are skipped."""
        return str(self._processor.decode([token for token in ids if token < self.vocab_size]))

    def without_special(self, text: str) -> str:
        """Return the text as it is: SentencePiece never parses control tokens out of text."""
        return text


class FastTokenizer:
    """A Hugging Face `tokenizer.json`.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        eos_tokens: what ends an answer, as tokens or ids.
        bos_id: put in front of a prompt; None where the prompt's template writes every special token itself.
    """

    def __init__(self, tokenizer: Any, *, eos_tokens: Sequence[str | int], bos_id: int | None = None) -> None:
        self._tokenizer = tokenizer
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self.eos_ids = frozenset(token if isinstance(token, int) else self._id(token) for token in eos_tokens)
        self._head = [] if bos_id is None else [bos_id]
        added = tokenizer.get_added_tokens_decoder().values()
        self._special = [token.content for token in added if token.special]

    def _id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise CheckpointError(f"the tokenizer has no token {token!r}; expected it as a special token")
        return int(token_id)

    def encode(self, text: str) -> list[int]:
        """Turn text into ids; special tokens written in the text become their ids."""
        return list(self._tokenizer.encode(encodable(text), add_special_tokens=False).ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Turn a prompt into ids, with the begin token in front if the model has one."""
        return [*self._head, *self.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def without_special(self, text: str) -> str:
        """Remove control tokens, also those that only form once others are removed."""
        while any(token in text for token in self._special):
            for token in self._special:
                text = text.replace(token, "")
        return text


def encodable(text: str) -> str:
    r"""Return a text if UTF-8 can encode it: every text without lone surrogates.

    Raises:
        QuestionError: for half of a pair: a byte that is no text, or half of an emoji.

    Example:
        >>> encodable("\udcff")
        Traceback (most recent call last):
        ...
        mu_llama.errors.QuestionError: the question holds bytes that are no text; expected UTF-8: check the locale
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QuestionError("the question holds bytes that are no text; expected UTF-8: check the locale") from error
    return text


def parse_sentencepiece(content: bytes, *, eos_ids: Sequence[int] = (), source: str) -> SentencePieceTokenizer:
    """Make a tokenizer of the content of a `tokenizer.model`.

    Args:
        content: of the file.
        eos_ids: see `SentencePieceTokenizer`.
        source: the file to name in an error.

    Raises:
        CheckpointError: if it isn't a SentencePiece model.
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
    except RuntimeError as error:
        raise CheckpointError(
            f"{source}: not a SentencePiece model; expected LLaMA's tokenizer.model: download it again"
        ) from error
    return SentencePieceTokenizer(processor, eos_ids=eos_ids)


def parse_fast_tokenizer(
    content: bytes, *, eos_tokens: Sequence[str | int], bos_id: int | None = None, source: str
) -> FastTokenizer:
    """Make a tokenizer of the content of a `tokenizer.json`.

    Args:
        content: of the file.
        eos_tokens: see `FastTokenizer`.
        bos_id: see `FastTokenizer`.
        source: the file to name in an error.

    Raises:
        CheckpointError: if it can't be parsed.
    """
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{source}: not a tokenizer.json ({error}); expected a Hugging Face tokenizer") from error
    return FastTokenizer(tokenizer, eos_tokens=eos_tokens, bos_id=bos_id)


class TextStream:
    """Decodes ids one by one into pieces of text that never split a character.

    `tokenizers.decoders.DecodeStream` would lose an incomplete character at the end, and has no SentencePiece.

    Example:
        >>> class Bytes:
        ...     vocab_size, eos_ids = 256, frozenset()
        ...     def encode(self, text): return list(text.encode())
        ...     encode_prompt = encode
        ...     def decode(self, ids): return bytes(ids).decode(errors="replace")
        >>> stream = TextStream(Bytes())
        >>> [stream.push(i) for i in "né".encode()]
        ['n', '', 'é']
    """

    # A character is at most four byte pieces long: after that many a broken one is really broken.
    _LONGEST_CHARACTER = 4

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._num_pending = 0
        self._emitted = ""

    def push(self, token_id: int) -> str:
        """Take one more id and return the text that is now certain."""
        self._ids.append(token_id)
        self._num_pending += 1
        text = self._tokenizer.decode(self._ids)
        if text.endswith(REPLACEMENT) and self._num_pending < self._LONGEST_CHARACTER:
            return ""
        return self._emit(text)

    def flush(self) -> str:
        """Return what `push` held back."""
        return self._emit(self._tokenizer.decode(self._ids))

    def _emit(self, text: str) -> str:
        piece, self._emitted, self._num_pending = text[len(self._emitted) :], text, 0
        return piece
