"""What turns labels into text: what it is asked, gives and may fail with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mu_llama.errors import MuLlamaError
from mu_llama.labels.track import Track


class NothingToSay(MuLlamaError, ValueError):  # noqa: N818 - it says what it is
    """A track without labels and caption: no attempt can help."""


class Damaged(MuLlamaError, ValueError):  # noqa: N818 - as above
    """A reply that isn't the JSON asked for: cut off, or something else; asking the same again may help.

    Args:
        text: what is wrong with it.
        prompt_tokens: what it cost all the same.
        completion_tokens: likewise.
    """

    def __init__(self, text: str, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        super().__init__(text)
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens


class Unavailable(MuLlamaError, RuntimeError):  # noqa: N818 - as above
    """The writer can't be reached for now; the track stays to be written."""


class Refused(MuLlamaError, RuntimeError):  # noqa: N818 - as above
    """The writer won't work at all: a wrong key, an unknown model."""


@dataclass(frozen=True)
class Written:
    """What a writer gave."""

    reply: Mapping[str, Any]
    """JSON object, to be checked."""
    prompt_tokens: int = 0
    """Tokens read, as the writer counts them."""
    completion_tokens: int = 0
    """Tokens written."""


class Writer(Protocol):
    """Writes about tracks."""

    name: str
    """Which kind it is."""
    num_at_once: int
    """How many tracks it takes at the same time."""

    async def write(self, track: Track, *, attempt: int) -> Written:
        """Write about a track.

        Args:
            track: with labels.
            attempt: 0, and one more after each reply that was refused; another attempt may write otherwise.

        Raises:
            NothingToSay: if there are no labels.
            Damaged: if what came can't be read.
            Unavailable: if nothing came, for now.
            Refused: if nothing will ever come.
        """
        ...
