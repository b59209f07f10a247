"""What asking gives: answers, failures, streams of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from mu_llama.engine.torch.cache import PrefixCache
from mu_llama.engine.torch.decoding import FinishReason
from mu_llama.errors import MuLlamaError, QuestionError
from mu_llama.text.fact_prompts import MeasuredFact

Value = TypeVar("Value")


@dataclass(frozen=True)
class Timings:
    """Where the seconds of an answer went."""

    listen_s: float
    """Reading and encoding the sound, or finding it in the cache."""
    first_token_s: float
    """From the start of writing to the first token; shared by the rows of a batch."""
    total_s: float
    """Listening and writing; the writing is shared by the rows of a batch."""


@dataclass(frozen=True)
class Answer:
    """What the model said, and about what."""

    text: str
    """The answer, without surrounding space."""
    audio: str
    """Name of the track."""
    question: str
    """What was asked."""
    model: str
    """Which model answered."""
    finish_reason: FinishReason
    """`stop` if the answer came to its end, `length` if it was cut at `max_new_tokens`."""
    heard: tuple[tuple[float, float], ...]
    """Seconds of the track that were heard, as (start, end)."""
    num_prompt_tokens: int
    """Length of the prompt."""
    num_tokens: int
    """Length of the answer."""
    timings: Timings
    """Where the time went."""


@dataclass(frozen=True)
class Failure:
    """One row of a batch that got no answer."""

    audio: str
    """Name of the track."""
    question: str
    """What was asked."""
    error: MuLlamaError
    """Why."""


class ComputedOnce(Generic[Value]):
    """Calls a function when its value is first asked for and keeps the value; can be pickled where the function can."""

    def __init__(self, function: Callable[[], Value]) -> None:
        self._function = function
        self._values: tuple[Value, ...] = ()

    def __call__(self) -> Value:
        """Return the value."""
        if not self._values:
            self._values = (self._function(),)
        return self._values[0]


@dataclass(frozen=True, eq=False)
class EncodedTrack:
    """A track after listening: what any number of questions can be asked about. Can be pickled.

    What came from an open file is pickled with a copy of the file's bytes, to measure it when that is asked for.
    """

    name: str
    """Name of the source."""
    conditioning: Tensor
    """(Q, A), on the model's device."""
    heard: tuple[tuple[float, float], ...]
    """Seconds that were heard, as (start, end)."""
    listen_s: float
    """How long listening took."""
    features: Tensor | None = None
    """What the encoder heard, (L, D)."""
    prefix: PrefixCache = field(default_factory=PrefixCache)
    """What the model makes of audio tokens and of what was said before, once it was asked."""
    measure: Callable[[], Mapping[str, MeasuredFact]] = dict
    """Gives measured facts by name, for models that read them; slow the first time."""


class AnswerStream:
    """Pieces of an answer as they are written; `answer` is there once they have all been taken.

    Stopping early stops the computation.
    """

    def __init__(self, pieces: Iterator[str | Answer]) -> None:
        self._pieces = pieces
        self._answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield non-empty pieces of text."""
        for piece in self._pieces:
            if isinstance(piece, Answer):
                self._answer = piece
            elif piece:
                yield piece

    @property
    def answer(self) -> Answer:
        """The finished answer; takes the pieces that are left."""
        for _ in self:
            pass
        if self._answer is None:
            raise QuestionError("the stream was closed before the answer was finished; ask again")
        return self._answer
