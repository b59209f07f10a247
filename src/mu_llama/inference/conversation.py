"""Questions about one track, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from mu_llama.engine.sampling import GenerationOptions
from mu_llama.inference.results import Answer, AnswerStream, EncodedTrack
from mu_llama.text.prompts import Turn


class StreamTurns(Protocol):
    """Answers the last turn of a conversation, as `Listener.stream_turns` does."""

    def __call__(self, track: EncodedTrack, turns: Sequence[Turn], *, options: GenerationOptions) -> AnswerStream:
        """Stream the answer."""
        ...


class Conversation:
    """Questions about one track; the model sees what was said before.

    Args:
        stream_turns: answers the last turn.
        track: the track.
        options: how answers are generated.
        read_ahead: runs the model over the conversation so far.
    """

    def __init__(
        self,
        stream_turns: StreamTurns,
        track: EncodedTrack,
        *,
        options: GenerationOptions,
        read_ahead: Callable[[EncodedTrack, Sequence[Turn]], None],
    ) -> None:
        self._stream_turns = stream_turns
        self._read_ahead = read_ahead
        self.track = track
        self.options = options
        self.turns: list[Turn] = []

    def ask(self, question: str) -> Answer:
        """Answer the next question.

        Raises:
            QuestionError: if it is empty, or the conversation has grown too long.
        """
        return self.stream(question).answer

    def stream(self, question: str) -> AnswerStream:
        """Answer the next question piece by piece; the turn is recorded once its answer is finished."""
        stream = self._stream_turns(self.track, [*self.turns, Turn(question)], options=self.options)
        return AnswerStream(self._recorded(stream))

    def read_ahead(self) -> None:
        """Run the model over the conversation so far, so that the next answer begins sooner; the answer is the same."""
        self._read_ahead(self.track, self.turns)

    def _recorded(self, stream: AnswerStream) -> Iterator[str | Answer]:
        yield from stream
        answer = stream.answer
        self.turns.append(Turn(answer.question, answer.text))
        yield answer
