"""The text of one answer while it is being written: whole characters, stop texts, trimmed ends."""

from __future__ import annotations

from collections.abc import Sequence

from mu_llama.text.tokenizer import TextStream, Tokenizer


class AnswerText:
    """Takes tokens and gives pieces that, joined, are the finished answer's text.

    Text that could still turn into a stop text, and space that could turn out to be the end, is held back.

    Args:
        tokenizer: decodes the ids.
        stop: texts that end the answer.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._stream = TextStream(tokenizer)
        self._stop = tuple(stop)
        self._written = ""
        self._told = ""
        self.stopped = False
        """True once a stop text came; no more tokens are wanted."""

    @property
    def text(self) -> str:
        """What has been handed out so far."""
        return self._told

    def push(self, token_id: int) -> str:
        """Take one more token and return the text that is now certain."""
        self._written += self._stream.push(token_id)
        return self._tell(final=False)

    def finish(self) -> str:
        """Return what was held back; call it once, at the end."""
        if not self.stopped:
            self._written += self._stream.flush()
        return self._tell(final=True)

    def _tell(self, *, final: bool) -> str:
        visible = self._written.lstrip()
        ends = [found for stop in self._stop if (found := visible.find(stop)) >= 0]
        if ends:
            self.stopped = True
            visible = visible[: min(ends)]
        elif not final:
            visible = visible[: len(visible) - self._num_held(visible)]
        visible = visible.rstrip()
        piece = visible[len(self._told) :]
        self._told += piece
        return piece

    def _num_held(self, visible: str) -> int:
        """Length of the longest end of the text that a stop text begins with."""
        longest = max((len(stop) for stop in self._stop), default=0)
        for length in range(min(longest - 1, len(visible)), 0, -1):
            if any(stop.startswith(visible[-length:]) for stop in self._stop):
                return length
        return 0
