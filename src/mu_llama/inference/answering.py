"""Answers rows of tracks and questions in batches: prompts in, pieces of text and finished answers out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike

from mu_llama.engine.generation import FinishReason, Token, check_prompt_length
from mu_llama.engine.prefix import Prompt
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import AudioError, ConfigError, MuLlamaError, QuestionError
from mu_llama.inference.open_model import OpenedModel
from mu_llama.inference.results import (
    Answer,
    Compute,
    EncodedTrack,
    Failure,
    LazyTrack,
    Timings,
    compute_here,
)
from mu_llama.text.fact_prompts import topics_of, with_measured
from mu_llama.text.prompts import Turn
from mu_llama.text.stop_strings import StopStringFilter
from mu_llama.text.tokenizer import encodable


@dataclass(frozen=True, eq=False)
class QuestionRow:
    """One question about one track, ready to be answered."""

    track: EncodedTrack
    """The track."""
    question: str
    """The last question."""
    prompt: Prompt
    """The whole conversation."""


def make_row(opened: OpenedModel, track: EncodedTrack, turns: Sequence[Turn]) -> QuestionRow:
    """Make the row that asks for the answer of the last turn.

    Raises:
        QuestionError: if the question is empty, or the conversation leaves no room for an answer.
    """
    question = turns[-1].question
    check_question(question)
    check_question(opened.tokenizer.without_special(question))
    cleaned = [_in_prompt(opened, track, turn) for turn in turns]
    ids = opened.tokenizer.encode_prompt(opened.parts.template.render(cleaned))
    check_prompt_length(len(ids), context_length=opened.context_length)
    return QuestionRow(track, question, Prompt(ids, _segments(opened, cleaned[:-1], ids)))


def read_ahead(opened: OpenedModel, track: EncodedTrack, turns: Sequence[Turn]) -> None:
    """Run the model over the prompt before the next question, so that its answer begins sooner; it stays the same.

    Args:
        opened: the model.
        track: what the conversation is about.
        turns: the conversation so far, each with its answer; may be empty.
    """
    cleaned = [_in_prompt(opened, track, turn) for turn in turns]
    ids = opened.tokenizer.encode_prompt(opened.parts.template.open(cleaned))
    if len(ids) < opened.context_length:
        opened.scheduler.read_ahead(_segments(opened, cleaned, ids), track.conditioning, track.prefix)


def _in_prompt(opened: OpenedModel, track: EncodedTrack, turn: Turn) -> Turn:
    """A turn as it stands in the prompt: with measured facts, and without control tokens, which could end it."""
    clean = opened.tokenizer.without_special
    question, answer = clean(turn.question), None if turn.answer is None else clean(turn.answer)
    return Turn(_with_facts(question, track) if opened.parts.template.reads_measured else question, answer)


def _segments(opened: OpenedModel, turns: Sequence[Turn], ids: Sequence[int]) -> list[list[int]]:
    """Token ids of the prompt before the next question: the head, then turn by turn.

    Only for models with audio tokens: other prompts are read in one pass, as the published system does.

    Args:
        opened: the model.
        turns: the conversation so far, as it stands in the prompt.
        ids: token ids of a prompt that begins with it.
    """
    if not opened.reads_segments:
        return []
    template, tokenizer = opened.parts.template, opened.tokenizer
    head = template.open([])
    segments = [tokenizer.encode_prompt(head)]
    end = len(segments[0])
    for turn in turns:
        segment = tokenizer.encode(template.open([turn])[len(head) :])
        if list(ids[end : end + len(segment)]) != segment:
            break  # a token reaches from one turn into the next
        segments.append(segment)
        end += len(segment)
    return segments


def _with_facts(question: str, track: EncodedTrack) -> str:
    """Append to a question the measured facts that it asks for."""
    topics = topics_of(question)
    facts = track.measure() if topics else {}
    return with_measured(question, {topic: facts[topic] for topic in topics if topic in facts})


def check_batch(audios: object, questions: object, batch_size: int) -> None:
    """Check the arguments of `ask_many`, such as one question where a list is expected.

    Raises:
        ConfigError: if the batch size isn't positive.
        AudioError, QuestionError: if there is one track or question rather than a list.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
    if isinstance(audios, (str, bytes, PathLike, EncodedTrack)):
        raise AudioError(f"audios is one {type(audios).__name__}; expected a list: put it in brackets")
    if isinstance(questions, (str, bytes)):
        raise QuestionError(f"questions is one {type(questions).__name__}; expected a list: put it in brackets")


def check_question(question: object) -> None:
    """Refuse a question without words.

    Raises:
        QuestionError: if it isn't a string, holds nothing but space, or bytes that are no text.
    """
    if not isinstance(question, str):
        raise QuestionError(
            f"the question is {question!r:.80} ({type(question).__name__}); expected a string, e.g. 'Is there singing?'"
        )
    if not encodable(question).strip():
        raise QuestionError("the question is empty; expected words, e.g. 'What instruments do you hear?'")


class _Running:
    """A row while it is answered: the tokens that come, as text.

    Args:
        opened: the model.
        row: track and question.
        options: how the answer is generated.
    """

    def __init__(self, opened: OpenedModel, row: QuestionRow, options: GenerationOptions) -> None:
        self._opened, self._row, self._start = opened, row, time.perf_counter()
        self._text = StopStringFilter(opened.tokenizer, (*options.stop, *opened.parts.template.stop))
        self._num_tokens, self._first_token_s = 0, 0.0
        self.answer: Answer | None = None
        """The finished answer."""
        self.generation = opened.scheduler.submit(
            row.prompt,
            row.track.conditioning,
            options=options,
            eos_ids=opened.tokenizer.eos_ids,
            prefix=row.track.prefix,
        )

    def accept(self, token: Token) -> str:
        """Take the next token; returns the text that it completes."""
        if self.answer is not None:  # tokens behind a stop text
            return ""
        elapsed_s = time.perf_counter() - self._start
        self._first_token_s = self._first_token_s or elapsed_s
        piece, reason = "", token.finish_reason
        if token.id is not None:
            self._num_tokens += 1
            piece = self._text.push(token.id)
        if self._text.stopped:
            self.generation.cancel()
            reason = "stop"
        if reason is not None:
            piece += self._text.finish()
            self.answer = self._finished(reason, elapsed_s)
        return piece

    def failed(self, error: MuLlamaError) -> Failure:
        """The row without an answer."""
        return Failure(self._row.track.name, self._row.question, error)

    def _finished(self, reason: FinishReason, elapsed_s: float) -> Answer:
        row, listen_s = self._row, self._row.track.listen_s
        return Answer(
            text=self._text.text,
            audio=row.track.name,
            question=row.question,
            model=self._opened.parts.name,
            finish_reason=reason,
            heard=row.track.spans,
            num_prompt_tokens=len(row.prompt.ids),
            num_tokens=self._num_tokens,
            timings=Timings(listen_s, self._first_token_s, total_s=listen_s + elapsed_s),
        )


def stream_row(opened: OpenedModel, row: QuestionRow, options: GenerationOptions) -> Iterator[str | Answer]:
    """Answer one row, beside whatever other rows are answered meanwhile.

    Yields:
        Pieces of text as text is generated, and the answer at the end.

    Raises:
        EngineError: if the model's numbers overflow.
    """
    running = _Running(opened, row, options)
    for _, token in opened.scheduler.stream([running.generation]):
        yield running.accept(token)
    assert running.answer is not None, "a row ends with a reason"
    yield running.answer


def question_rows(opened: OpenedModel, track: LazyTrack, questions: Sequence[str]) -> Iterator[QuestionRow | Failure]:
    """Make the rows of one track; a track that can't be encoded or a question that can't be asked gives failures."""
    try:
        encoded = track.encode()
    except MuLlamaError as error:
        yield from (Failure(track.name, question, error) for question in questions)
        return
    for question in questions:
        try:
            yield make_row(opened, encoded, [Turn(question)])
        except MuLlamaError as error:
            yield Failure(encoded.name, question, error)


def answer_rows(
    opened: OpenedModel,
    rows: Iterable[QuestionRow | Failure],
    options: GenerationOptions,
    *,
    batch_size: int,
    compute: Compute = compute_here,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Answer | Failure]:
    """Answer rows, many at once, each made when there is room for it; yields answers and failures in order.

    Args:
        opened: the model.
        rows: questions, and failures to pass on.
        options: how answers are generated.
        batch_size: questions that are answered at once; the model runs up to `scheduler.MAX_ROWS` of them together.
        compute: runs each step of the model.
        should_stop: called before each row and after each step. Once it returns True, the computation ends, and rows
            without a finished answer are left out.
    """
    source, entries = iter(rows), deque[_Running | Failure]()
    has_more = True
    try:
        while has_more or entries:
            running = [entry for entry in entries if isinstance(entry, _Running) and entry.answer is None]
            # Answers that wait for an earlier one are bounded too.
            while has_more and len(running) < batch_size and len(entries) < 4 * batch_size and not should_stop():
                row = next(source, None)
                if row is None:
                    has_more = False
                elif isinstance(row, Failure):
                    entries.append(row)
                else:
                    running.append(_Running(opened, row, options))
                    entries.append(running[-1])
            if running and not should_stop():
                for index, token in compute(partial(opened.scheduler.take, [entry.generation for entry in running])):
                    if isinstance(token, BaseException):
                        _fail(entries, running[index], token)
                    else:
                        running[index].accept(token)
            if should_stop():
                ready = [_result(entry) for entry in entries]
                yield from (result for result in ready if result is not None)
                return
            while entries and (result := _result(entries[0])) is not None:
                entries.popleft()
                yield result
    finally:
        for entry in entries:
            if isinstance(entry, _Running):
                entry.generation.cancel()


def _result(entry: _Running | Failure) -> Answer | Failure | None:
    return entry if isinstance(entry, Failure) else entry.answer


def _fail(entries: deque[_Running | Failure], running: _Running, error: BaseException) -> None:
    """Put a failure in the place of a row whose computation failed; other errors than ours end everything."""
    if not isinstance(error, MuLlamaError):
        raise error
    entries[entries.index(running)] = running.failed(error)
