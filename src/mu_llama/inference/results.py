"""Results of asking: encoded tracks, answers, failures, streams of text; and where their computation runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, cast

from mu_llama.arrays import FloatArray
from mu_llama.engine.generation import FinishReason
from mu_llama.engine.prefix import PrefixCache
from mu_llama.errors import MuLlamaError, QuestionError
from mu_llama.text.fact_prompts import MeasuredFact

Value = TypeVar("Value")
Spans = tuple[tuple[float, float], ...]
"""Parts of a track, as (start, end) in seconds."""
_END = object()


@dataclass(frozen=True)
class Timings:
    """Where the seconds of an answer went."""

    listen_s: float
    """Reading and encoding the audio, or finding its features in the cache."""
    first_token_s: float
    """From the question to the first token, with what it waited for other rows."""
    total_s: float
    """Encoding and generation, with what the answer waited for other rows."""


@dataclass(frozen=True)
class Answer:
    """An answer, and what it is about."""

    text: str
    """The answer, without surrounding whitespace."""
    audio: str
    """Name of the track."""
    question: str
    """The question."""
    model: str
    """Name of the model."""
    finish_reason: FinishReason
    """`stop` if the answer came to its end, `length` if it was cut at `max_new_tokens`."""
    heard: Spans
    """The parts of the track that were encoded, as (start, end) in seconds."""
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
    """The question."""
    error: MuLlamaError
    """The reason."""


class ComputedOnce(Generic[Value]):
    """Calls a function on first use and keeps its value; can be pickled where the function can."""

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
    """A track after encoding: any number of questions can be asked about it. Can be pickled.

    A track from an open file is pickled with a copy of the file's bytes, from which facts can be measured later.
    """

    name: str
    """Name of the source."""
    conditioning: FloatArray
    """(Q, A), or (N, H) with audio tokens."""
    spans: Spans
    """The parts that were encoded, as (start, end) in seconds."""
    listen_s: float
    """How long reading and encoding took, in seconds."""
    features: FloatArray | None = None
    """The encoder's output, (L, D)."""
    prefix: PrefixCache = field(default_factory=PrefixCache)
    """Keys and values of the audio tokens and earlier turns, once the model has read them."""
    measure: Callable[[], Mapping[str, MeasuredFact]] = dict
    """Returns measured facts by name, for models that read them; slow on the first call."""

    @property
    def heard(self) -> Spans:
        """Deprecated name of `spans`."""
        warnings.warn("EncodedTrack.heard is now EncodedTrack.spans", DeprecationWarning, stacklevel=2)
        return self.spans


@dataclass(frozen=True)
class LazyTrack:
    """A track of a batch that is encoded when its turn comes."""

    name: str
    """Names it in a `Failure`."""
    encode: Callable[[], EncodedTrack]
    """Encodes it; a `MuLlamaError` fails its questions alone."""


class AnswerStream:
    """An answer piece by piece; `answer` takes the pieces that are left and returns the whole.

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
        """The finished answer."""
        for _ in self:
            pass
        if self._answer is None:
            raise QuestionError("the stream was closed before the answer was finished; ask again")
        return self._answer


class Compute(Protocol):
    """Runs a function that computes on the model or encoder; a server passes one that uses a single thread."""

    def __call__(self, function: Callable[[], Value], /) -> Value:
        """Run the function, and return what it returns or raise what it raises."""
        ...


def compute_here(function: Callable[[], Value], /) -> Value:
    """Run a function in the calling thread."""
    return function()


def compute_steps(items: Iterator[Value], compute: Compute) -> Iterator[Value]:
    """Take each item through `compute`, so that other computations can run between two items."""
    while (item := compute(lambda: next(items, _END))) is not _END:
        yield cast("Value", item)
