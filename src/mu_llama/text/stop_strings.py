"""Stop strings: the text of one answer while its tokens arrive, cut at the first stop string and trimmed."""

from __future__ import annotations

from collections.abc import Sequence

from mu_llama.text.tokenizer import TextStream, Tokenizer


class StopStringFilter:
    """Turns token ids into pieces of text that, joined, are the finished answer.

    Text that may be the beginning of a stop string, and trailing whitespace, is held back until more is known.

    Args:
        tokenizer: decodes the ids.
        stop: strings that end the answer.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._stream = TextStream(tokenizer)
        self._stop = tuple(stop)
        self._decoded = ""
        self._emitted = ""
        self.stopped = False
        """True once a stop string came; no more tokens are needed."""

    @property
    def text(self) -> str:
        """What was returned so far."""
        return self._emitted

    def push(self, token_id: int) -> str:
        """Take one more token and return the text that is now certain."""
        self._decoded += self._stream.push(token_id)
        return self._emit(final=False)

    def finish(self) -> str:
        """Return what was held back; call it once, at the end."""
        if not self.stopped:
            self._decoded += self._stream.flush()
        return self._emit(final=True)

    def _emit(self, *, final: bool) -> str:
        visible = self._decoded.lstrip()
        starts = [start for stop in self._stop if (start := visible.find(stop)) >= 0]
        if starts:
            self.stopped = True
            visible = visible[: min(starts)]
        elif not final:
            visible = visible[: len(visible) - self._num_ambiguous(visible)]
        visible = visible.rstrip()
        piece = visible[len(self._emitted) :]
        self._emitted += piece
        return piece

    def _num_ambiguous(self, visible: str) -> int:
        """Length of the longest suffix of the text that is a prefix of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=0)
        for length in range(min(longest - 1, len(visible)), 0, -1):
            if any(stop.startswith(visible[-length:]) for stop in self._stop):
                return length
        return 0
