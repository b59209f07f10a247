"""The facade: ask a loaded model about tracks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, Literal

from mu_llama.audio.windows import ListenOptions
from mu_llama.checkpoints.convert import ConvertOptions
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import ConfigError, renamed_keywords
from mu_llama.inference.answering import (
    QuestionRow,
    answer_rows,
    check_batch,
    check_question,
    make_row,
    question_rows,
    read_ahead,
    stream_row,
)
from mu_llama.inference.conversation import Conversation
from mu_llama.inference.extractor import Audio, source_name
from mu_llama.inference.results import (
    Answer,
    AnswerStream,
    EncodedTrack,
    Failure,
    LazyTrack,
    compute_steps,
)
from mu_llama.inference.tracks import TrackEncoder
from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.text.prompts import CAPTION_QUESTIONS, Turn

_DEFAULTS = GenerationOptions()
_CONVERSION = ConvertOptions()


class Listener(TrackEncoder):
    """Answers questions about tracks.

    Make one with `load`. Reading is thread-safe; a track is encoded once and its features are cached. Arguments and
    the methods that encode tracks: see `TrackEncoder`.
    """

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.opened.parts.name

    @property
    def licences(self) -> Mapping[str, str]:
        """Licence of each part of the model."""
        return self.opened.parts.licences

    def ask(
        self,
        audio: Audio | EncodedTrack,
        question: str,
        *,
        options: GenerationOptions = _DEFAULTS,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> Answer:
        """Answer one question about one track.

        Args:
            audio: path, bytes, binary file, `Waveform`, or what `listen` returned.
            question: in plain words.
            options: how the answer is generated.
            offset_s: first second that is encoded.
            duration_s: how many seconds are encoded at most; None is up to the end.

        Raises:
            AudioError: if the track can't be read or is silent.
            QuestionError: if the question is empty or too long.
        """
        return self.stream(audio, question, options=options, offset_s=offset_s, duration_s=duration_s).answer

    def stream(
        self,
        audio: Audio | EncodedTrack,
        question: str,
        *,
        options: GenerationOptions = _DEFAULTS,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> AnswerStream:
        """Answer one question piece by piece; arguments and errors as for `ask`."""
        check_question(question)
        track = self.encode(audio, ListenOptions(offset_s, duration_s))
        return self.stream_turns(track, [Turn(question)], options=options)

    @staticmethod
    def check_question(question: object) -> None:
        """Raise a `QuestionError` for what is no question, before anything is computed."""
        check_question(question)

    def stream_turns(
        self, track: EncodedTrack, turns: Sequence[Turn], *, options: GenerationOptions = _DEFAULTS
    ) -> AnswerStream:
        """Answer the last turn of a conversation piece by piece; every earlier turn has its answer.

        Raises:
            QuestionError: if the last question is empty or the conversation is too long.
        """
        pieces = stream_row(self.opened, make_row(self.opened, track, turns), options)
        return AnswerStream(compute_steps(pieces, self._compute))

    def read_ahead(self, track: EncodedTrack, turns: Sequence[Turn]) -> None:
        """Run the model over a conversation so far, so that its next answer begins sooner; the answer is the same."""
        self._compute(lambda: read_ahead(self.opened, track, turns))

    def ask_many(
        self,
        audios: Sequence[Audio | EncodedTrack],
        questions: Sequence[str],
        *,
        options: GenerationOptions = _DEFAULTS,
        batch_size: int = 16,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> list[Answer | Failure]:
        """Ask every question about every track, many rows in one batch.

        Returns:
            One record for each track and question, tracks outermost, in order. A track that can't be encoded or a
            question that can't be asked gives `Failure` records, and the others are answered.
        """
        rows = self.iterate_many(
            audios, questions, options=options, batch_size=batch_size, offset_s=offset_s, duration_s=duration_s
        )
        return list(rows)

    def iterate_many(
        self,
        audios: Sequence[Audio | EncodedTrack | LazyTrack],
        questions: Sequence[str],
        *,
        options: GenerationOptions = _DEFAULTS,
        batch_size: int = 16,
        offset_s: float = 0.0,
        duration_s: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Answer | Failure]:
        """Like `ask_many`, yielding records in order as they are finished; holds a few batches at most.

        Args:
            audios: as for `ask_many`, or tracks to encode when their turn comes.
            questions: asked about each.
            options: how answers are generated.
            batch_size: questions that are answered at once; more than 16 gain nothing.
            offset_s: as for `ask`.
            duration_s: as for `ask`.
            should_stop: called before each track and each step; once True, finished answers are yielded, then it ends.
        """
        check_batch(audios, questions, batch_size)
        part = ListenOptions(offset_s, duration_s)

        def rows() -> Iterator[QuestionRow | Failure]:
            for audio in audios:
                if should_stop():
                    return
                if not isinstance(audio, LazyTrack):
                    name = audio.name if isinstance(audio, EncodedTrack) else source_name(audio)
                    audio = LazyTrack(name, partial(self.encode, audio, part))
                yield from question_rows(self.opened, audio, questions)

        yield from answer_rows(
            self.opened, rows(), options, batch_size=batch_size, compute=self._compute, should_stop=should_stop
        )

    def chat(self, audio: Audio | EncodedTrack, *, options: GenerationOptions = _DEFAULTS) -> Conversation:
        """Start a conversation about one track; earlier turns are part of every prompt.

        Raises:
            AudioError: if the track can't be read or is silent.
        """
        track = self.encode(audio, ListenOptions())
        return Conversation(self.stream_turns, track, options=options, read_ahead=self.read_ahead)

    def caption(
        self,
        audio: Audio | EncodedTrack,
        *,
        detail: Literal["short", "long"] = "short",
        options: GenerationOptions = _DEFAULTS,
    ) -> Answer:
        """Describe a track: `ask` with one of two fixed questions.

        Args:
            audio: as for `ask`.
            detail: `short` for a sentence, `long` for several.
            options: how the caption is generated.
        """
        if detail not in CAPTION_QUESTIONS:
            raise ConfigError(f"detail is {detail!r}; expected one of {', '.join(CAPTION_QUESTIONS)}")
        return self.ask(audio, CAPTION_QUESTIONS[detail], options=options)

    @classmethod
    def from_pretrained(cls, model: str | PathLike[str], **settings: Any) -> Listener:
        """Open a model folder or hub id: `load`, under the name that users of the hub's libraries look for."""
        from mu_llama.inference.pretrained import load

        return load(model, **settings)

    @renamed_keywords(track="progress")
    def save_pretrained(
        self,
        folder: str | PathLike[str],
        *,
        options: ConvertOptions = _CONVERSION,
        progress: ProgressCallback = no_progress,
    ) -> None:
        """Write everything this model was loaded from as one folder that `load` opens anywhere.

        Args:
            folder: where; it appears whole or not at all.
            options: merged or not, in which dtype.
            progress: called with the number of bytes written.

        Raises:
            ConfigError: if the folder exists.
            CheckpointError: if it can't be written.
        """
        from mu_llama.inference.pretrained import save_model

        save_model(self.opened.parts, folder, options=options, progress=progress)

    def push_to_hub(self, hub_id: str, *, private: bool = False, options: ConvertOptions = _CONVERSION) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub, with the token that its tools keep.

        Args:
            hub_id: `owner/name`; created where it doesn't exist.
            private: whether only its owner sees it.
            options: see `save_pretrained`.

        Returns:
            The address of the commit.

        Raises:
            ConfigError: if `hub_id` isn't one.
        """
        from mu_llama.inference.pretrained import push_model

        return push_model(self.opened.parts, hub_id, private=private, options=options)
