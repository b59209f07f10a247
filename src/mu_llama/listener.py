"""The facade: load a model, then ask it about tracks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mu_llama.answer_text import AnswerText
from mu_llama.audio.windows import FULL, PUBLISHED
from mu_llama.checkpoints.faiss_flat import read_faiss_flat
from mu_llama.checkpoints.open_model import OpenedModel, open_model
from mu_llama.encoders.feature_cache import FeatureCache
from mu_llama.encoders.track import TrackFeatures
from mu_llama.errors import ConfigError, MuLlamaError, QuestionError
from mu_llama.generation import Decoder, FinishReason, GenerationOptions
from mu_llama.hearing import Audio, Hearing, audio_name
from mu_llama.model.retrieval import BlendOptions, NeighbourBlend
from mu_llama.prompts import CAPTION_QUESTIONS, Turn
from mu_llama.runtime import choose_device, choose_dtype, home_folder

PLANS = {"full": FULL, "published": PUBLISHED}
_DEFAULTS = GenerationOptions()


@dataclass(frozen=True)
class Timings:
    """Where the seconds of an answer went."""

    listen_s: float
    """Reading and encoding the sound, or finding it in the cache."""
    first_token_s: float
    """From the start of writing to the first token; shared by the rows of a batch."""
    total_s: float
    """Everything; rows of a batch share it."""


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


@dataclass(frozen=True, eq=False)
class HeardTrack:
    """A track after listening: what any number of questions can be asked about."""

    name: str
    """Name of the source."""
    conditioning: Tensor
    """(Q, A), on the model's device."""
    heard: tuple[tuple[float, float], ...]
    """Seconds that were heard."""
    listen_s: float
    """How long listening took."""


@dataclass(frozen=True)
class _Row:
    track: HeardTrack
    question: str
    prompt: list[int]


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


class Listener:
    """Answers questions about tracks.

    Make one with `load`. Reading is thread-safe; a track is heard once and its features are cached.

    Args:
        opened: model, tokenizer, prompt template and encoder.
        hearing: turns sound into features.
        blend: neighbours to mix into each track's vector, if any.
    """

    def __init__(self, opened: OpenedModel, *, hearing: Hearing, blend: NeighbourBlend | None = None) -> None:
        self.opened = opened
        self.hearing = hearing
        self.blend = blend

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.opened.name

    def listen(self, audio: Audio, *, offset_s: float = 0.0, duration_s: float | None = None) -> HeardTrack:
        """Hear a track once, to ask many things about it.

        Raises:
            AudioError: if it can't be heard.
        """
        start = time.perf_counter()
        features = self.hearing.hear(audio, offset_s=offset_s, duration_s=duration_s)
        return self.recall(features, name=audio_name(audio), since=start)

    @torch.inference_mode()
    def recall(self, features: TrackFeatures, *, name: str, since: float | None = None) -> HeardTrack:
        """Make a track out of features that were computed before.

        Args:
            features: (L, D) of this model's encoder.
            name: of the track.
            since: `time.perf_counter()` at which listening began; None for now.
        """
        start = time.perf_counter() if since is None else since
        conditioning = self.opened.model.condition(features.values[None], blend=self.blend)[0]
        return HeardTrack(name, conditioning, features.heard, listen_s=time.perf_counter() - start)

    def ask(
        self,
        audio: Audio | HeardTrack,
        question: str,
        *,
        options: GenerationOptions = _DEFAULTS,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> Answer:
        """Answer one question about one track.

        Args:
            audio: path, bytes, binary file, `Waveform`, or what `listen` gave.
            question: in plain words.
            options: how the answer is written.
            offset_s: where listening starts.
            duration_s: how much is listened to; None is up to the end.

        Raises:
            AudioError: if the track can't be heard.
            QuestionError: if the question is empty or too long.
        """
        return self.stream(audio, question, options=options, offset_s=offset_s, duration_s=duration_s).answer

    def stream(
        self,
        audio: Audio | HeardTrack,
        question: str,
        *,
        options: GenerationOptions = _DEFAULTS,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> AnswerStream:
        """Answer one question piece by piece; arguments and errors as for `ask`."""
        self._check_question(question)
        track = self._track(audio, offset_s, duration_s)
        return self._stream_turns(track, [Turn(question)], options)

    def _stream_turns(
        self, track: HeardTrack, turns: Sequence[Turn], options: GenerationOptions
    ) -> AnswerStream:
        row = self._row(track, turns)
        return AnswerStream(piece for _, piece in self._write([row], options))

    def ask_many(
        self,
        audios: Sequence[Audio | HeardTrack],
        questions: Sequence[str],
        *,
        options: GenerationOptions = _DEFAULTS,
        batch_size: int = 16,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> list[Answer | Failure]:
        """Ask every question about every track, many rows in one batch.

        Returns:
            One record for each track and question, tracks outermost, in order. A track that can't be heard
            gives `Failure` records and the others are answered.

        Raises:
            QuestionError: if a question is empty.
        """
        return list(
            self.iterate_many(
                audios,
                questions,
                options=options,
                batch_size=batch_size,
                offset_s=offset_s,
                duration_s=duration_s,
            )
        )

    def iterate_many(
        self,
        audios: Sequence[Audio | HeardTrack],
        questions: Sequence[str],
        *,
        options: GenerationOptions = _DEFAULTS,
        batch_size: int = 16,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> Iterator[Answer | Failure]:
        """Like `ask_many`, yielding records in order as batches finish; holds one batch at a time."""
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
        for question in questions:
            self._check_question(question)
        waiting: list[_Row | Failure] = []
        for audio in audios:
            waiting.extend(self._rows_of(audio, questions, offset_s, duration_s))
            while sum(isinstance(row, _Row) for row in waiting) >= batch_size:
                cut = _end_of_batch(waiting, batch_size)
                yield from self._answer_batch(waiting[:cut], options)
                waiting = waiting[cut:]
        yield from self._answer_batch(waiting, options)

    def _rows_of(
        self, audio: Audio | HeardTrack, questions: Sequence[str], offset_s: float, duration_s: float | None
    ) -> Iterator[_Row | Failure]:
        try:
            track = self._track(audio, offset_s, duration_s)
        except MuLlamaError as error:
            name = audio.name if isinstance(audio, HeardTrack) else audio_name(audio)
            yield from (Failure(name, question, error) for question in questions)
            return
        for question in questions:
            try:
                yield self._row(track, [Turn(question)])
            except MuLlamaError as error:
                yield Failure(track.name, question, error)

    def _answer_batch(
        self, waiting: Sequence[_Row | Failure], options: GenerationOptions
    ) -> Iterator[Answer | Failure]:
        rows = [row for row in waiting if isinstance(row, _Row)]
        written = self._write(rows, options) if rows else iter(())
        answers = {row: piece for row, piece in written if isinstance(piece, Answer)}
        ordered = iter(answers[index] for index in range(len(rows)))
        for row in waiting:
            yield row if isinstance(row, Failure) else next(ordered)

    def chat(self, audio: Audio | HeardTrack, *, options: GenerationOptions = _DEFAULTS) -> Conversation:
        """Start a conversation about one track; earlier turns are part of every prompt.

        Raises:
            AudioError: if the track can't be heard.
        """
        return Conversation(self, self._track(audio, 0.0, None), options=options)

    def caption(
        self,
        audio: Audio | HeardTrack,
        *,
        detail: Literal["short", "long"] = "short",
        options: GenerationOptions = _DEFAULTS,
    ) -> Answer:
        """Describe a track, as `ask` would on being asked to.

        Args:
            audio: as for `ask`.
            detail: `short` for a sentence, `long` for several.
            options: how the caption is written.
        """
        if detail not in CAPTION_QUESTIONS:
            raise ConfigError(f"detail is {detail!r}; expected one of {', '.join(CAPTION_QUESTIONS)}")
        return self.ask(audio, CAPTION_QUESTIONS[detail], options=options)

    def _track(self, audio: Audio | HeardTrack, offset_s: float, duration_s: float | None) -> HeardTrack:
        if isinstance(audio, HeardTrack):
            return audio
        return self.listen(audio, offset_s=offset_s, duration_s=duration_s)

    def _check_question(self, question: str) -> None:
        if not question.strip():
            raise QuestionError("the question is empty; expected words, e.g. 'What instruments do you hear?'")

    def _row(self, track: HeardTrack, turns: Sequence[Turn]) -> _Row:
        text = self.opened.template.render([self._clean(turn) for turn in turns])
        prompt = self.opened.tokenizer.encode_prompt(text)
        if len(prompt) >= self.opened.model.context_length:
            raise QuestionError(
                f"the prompt is {len(prompt)} tokens long, the model's context {self.opened.model.context_length}; "
                "ask something shorter or start a new conversation"
            )
        return _Row(track, turns[-1].question, prompt)

    def _clean(self, turn: Turn) -> Turn:
        """Take control tokens out of what people wrote, so that a question can't end its own turn."""
        clean = self.opened.tokenizer.without_special
        return Turn(clean(turn.question), None if turn.answer is None else clean(turn.answer))

    def _write(self, rows: Sequence[_Row], options: GenerationOptions) -> Iterator[tuple[int, str | Answer]]:
        """Write all rows at once; yields (row, piece of text) and, at the end of a row, (row, answer)."""
        start = time.perf_counter()
        decoder = Decoder(
            self.opened.model,
            prompts=[row.prompt for row in rows],
            conditioning=torch.stack([row.track.conditioning for row in rows]),
            options=options,
            eos_ids=self.opened.tokenizer.eos_ids,
        )
        texts = [AnswerText(self.opened.tokenizer, (*options.stop, *self.opened.template.stop)) for _ in rows]
        counts = [0] * len(rows)
        first_token_s = 0.0
        for token in decoder:
            first_token_s = first_token_s or time.perf_counter() - start
            text, reason = texts[token.row], token.finish_reason
            if token.id is not None:
                counts[token.row] += 1
                yield token.row, text.push(token.id)
            if text.stopped:
                decoder.finish(token.row)
                reason = "stop"
            if reason is not None:
                yield token.row, text.finish()
                row = rows[token.row]
                timings = Timings(
                    row.track.listen_s, first_token_s, time.perf_counter() - start + row.track.listen_s
                )
                yield token.row, self._answer(row, text.text, reason, counts[token.row], timings)

    def _answer(
        self, row: _Row, text: str, reason: FinishReason, num_tokens: int, timings: Timings
    ) -> Answer:
        return Answer(
            text=text,
            audio=row.track.name,
            question=row.question,
            model=self.name,
            finish_reason=reason,
            heard=row.track.heard,
            num_prompt_tokens=len(row.prompt),
            num_tokens=num_tokens,
            timings=timings,
        )


class Conversation:
    """Questions about one track, one after the other; the model sees what was said before.

    Args:
        listener: who answers.
        track: what about.
        options: how answers are written.
    """

    def __init__(
        self, listener: Listener, track: HeardTrack, *, options: GenerationOptions = _DEFAULTS
    ) -> None:
        self._listener = listener
        self.track = track
        self.options = options
        self.turns: list[Turn] = []

    def ask(self, question: str) -> Answer:
        """Answer the next question."""
        return self.stream(question).answer

    def stream(self, question: str) -> AnswerStream:
        """Answer the next question piece by piece; the turn is remembered once its answer is finished."""
        self._listener._check_question(question)
        stream = self._listener._stream_turns(self.track, [*self.turns, Turn(question)], self.options)
        return AnswerStream(self._remembering(stream))

    def _remembering(self, stream: AnswerStream) -> Iterator[str | Answer]:
        yield from stream
        answer = stream.answer
        self.turns.append(Turn(answer.question, answer.text))
        yield answer


def _end_of_batch(waiting: Sequence[_Row | Failure], batch_size: int) -> int:
    """Index just behind the row that fills a batch."""
    num_rows = 0
    for index, row in enumerate(waiting):
        num_rows += isinstance(row, _Row)
        if num_rows == batch_size:
            return index + 1
    return len(waiting)


def load(
    model: str | Path = "mini",
    *,
    llama: str | Path | None = None,
    encoder: str | Path | None = None,
    knn_index: str | Path | None = None,
    blend: BlendOptions | None = None,
    window: Literal["auto", "full", "published"] = "auto",
    device: str = "auto",
    dtype: str = "auto",
    use_cache: bool = True,
    report: Callable[[str], None] = lambda _: None,
) -> Listener:
    """Load a model.

    Args:
        model: `mini` (the embedded default), a mu-llama model folder, or a published checkpoint.
        llama: Meta LLaMA folder beside a published checkpoint.
        encoder: MERT folder or hub id beside a published checkpoint.
        knn_index: faiss file of vectors to blend into each track's own.
        blend: how far; needs `knn_index`.
        window: which seconds are heard: `full` (all), `published` (the first minute), `auto` (the model's own).
        device: auto, cpu, cuda, cuda:N, mps.
        dtype: of the LLaMA: auto, bf16, fp16, fp32.
        use_cache: keep features on disk, so that a track is encoded once.
        report: told what takes long (fetching, converting).

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if its files are damaged or don't fit together.
        ConfigError: if settings contradict each other.

    Example:
        >>> listener = load("mini")  # doctest: +SKIP
        >>> listener.ask("song.ogg", "Is there singing?").text  # doctest: +SKIP
    """
    if window != "auto" and window not in PLANS:
        raise ConfigError(f"window is {window!r}; expected auto, {' or '.join(PLANS)}")
    if (knn_index is None) != (blend is None):
        raise ConfigError("knn_index and blend belong together; give both or neither")
    chosen = choose_device(device)
    opened = open_model(
        model,
        llama=llama,
        encoder=encoder,
        device=chosen,
        dtype=choose_dtype(dtype, chosen),
        home=home_folder(),
        report=report,
    )
    cache = FeatureCache(home_folder() / "features") if use_cache else None
    plan = opened.plan if window == "auto" else PLANS[window]
    hearing = Hearing(opened.make_encoder, plan=plan, cache=cache)
    neighbours = None
    if knn_index is not None and blend is not None:
        neighbours = NeighbourBlend(read_faiss_flat(Path(knn_index)), blend)
    return Listener(opened, hearing=hearing, blend=neighbours)
