"""Answers rows of tracks and questions in batches: prompts in, pieces of text and finished answers out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike

import torch

from mu_llama.engine.sampling import GenerationOptions
from mu_llama.engine.torch.cache import Prompt, begin_cache, read_segments
from mu_llama.engine.torch.decoding import FinishReason, TokenDecoder, check_prompt_length
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
    compute_steps,
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
    check_prompt_length(len(ids), context_length=opened.model.context_length)
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
    if len(ids) < opened.model.context_length:
        read_segments(opened.model, track.conditioning, _segments(opened, cleaned, ids), track.prefix)


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
    if not opened.model.caches_prefix:
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


def stream_rows(
    opened: OpenedModel, rows: Sequence[QuestionRow], options: GenerationOptions
) -> Iterator[tuple[int, str | Answer]]:
    """Answer all rows in one batch, each with its own conditioning.

    Yields:
        (row, piece of text) as text is generated and, at the end of a row, (row, answer).
    """
    start = time.perf_counter()
    conditioning = torch.stack([row.track.conditioning for row in rows])
    prompts = [row.prompt for row in rows]
    cache, num_cached = begin_cache(opened.model, conditioning, prompts, [row.track.prefix for row in rows])
    decoder = TokenDecoder(
        opened.model,
        prompts=[prompt.ids for prompt in prompts],
        conditioning=conditioning,
        cache=cache,
        num_cached=num_cached,
        options=options,
        eos_ids=opened.tokenizer.eos_ids,
    )
    texts = [StopStringFilter(opened.tokenizer, (*options.stop, *opened.parts.template.stop)) for _ in rows]
    counts = [0] * len(rows)
    first_token_s: float | None = None
    for token in decoder:
        now = time.perf_counter() - start
        first_token_s = now if first_token_s is None else first_token_s
        text, reason = texts[token.row], token.finish_reason
        if token.id is not None:
            counts[token.row] += 1
            yield token.row, text.push(token.id)
        if text.stopped:
            decoder.finish(token.row)
            reason = "stop"
        if reason is not None:
            yield token.row, text.finish()
            listen_s = rows[token.row].track.listen_s
            timings = Timings(listen_s, first_token_s, total_s=listen_s + time.perf_counter() - start)
            yield token.row, _answer(opened, rows[token.row], text.text, reason, counts[token.row], timings)


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
    """Answer rows in batches, made when they are needed; yields answers and failures in order.

    Args:
        opened: the model.
        rows: questions, and failures to pass on.
        options: how answers are generated.
        batch_size: questions in a batch.
        compute: runs each step of the model.
        should_stop: called before each batch and after each step; see `answer_batch`.
    """
    waiting: list[QuestionRow | Failure] = []
    for row in rows:
        waiting.append(row)
        if sum(isinstance(row, QuestionRow) for row in waiting) == batch_size:
            yield from answer_batch(opened, waiting, options, compute=compute, should_stop=should_stop)
            waiting = []
    yield from answer_batch(opened, waiting, options, compute=compute, should_stop=should_stop)


def answer_batch(
    opened: OpenedModel,
    waiting: Sequence[QuestionRow | Failure],
    options: GenerationOptions,
    *,
    compute: Compute = compute_here,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Answer | Failure]:
    """Answer the rows in one batch; yields answers and failures in the order of `waiting`.

    Once `should_stop` returns True, the computation ends, and rows without a finished answer are left out.
    """
    if should_stop():
        return
    rows = [row for row in waiting if isinstance(row, QuestionRow)]
    answers: dict[int, Answer] = {}
    pieces = stream_rows(opened, rows, options) if rows else iter(())
    for index, piece in compute_steps(pieces, compute):
        if isinstance(piece, Answer):
            answers[index] = piece
        if should_stop():
            break
    indices = iter(range(len(rows)))
    for row in waiting:
        if isinstance(row, Failure):
            yield row
        elif (index := next(indices)) in answers:
            yield answers[index]


def _answer(
    opened: OpenedModel, row: QuestionRow, text: str, reason: FinishReason, num_tokens: int, timings: Timings
) -> Answer:
    return Answer(
        text=text,
        audio=row.track.name,
        question=row.question,
        model=opened.parts.name,
        finish_reason=reason,
        heard=row.track.spans,
        num_prompt_tokens=len(row.prompt.ids),
        num_tokens=num_tokens,
        timings=timings,
    )
