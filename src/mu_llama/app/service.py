"""The demo's logic: encodes tracks and answers questions for all sessions. Knows nothing of gradio."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mu_llama.app.session import DemoSession, TrackHandle, TrackHandles
from mu_llama.audio.read import open_audio
from mu_llama.audio.windows import WindowChoice, merge_spans
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import AudioError, QuestionError
from mu_llama.files import to_line
from mu_llama.inference.listener import Listener
from mu_llama.inference.results import EncodedTrack
from mu_llama.text.prompts import Turn

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


class ComputeThread:
    """Runs functions one at a time in a thread of its own; its `run` satisfies `inference.results.Compute`.

    OpenMP starts helper threads for each thread that computes. Once there are more of them than cores they sleep
    between two matrix products instead of spinning, and a token is hundreds of products.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._thread_id = self._pool.submit(threading.get_ident).result()

    def run(self, function: Callable[[], Value], /) -> Value:
        """Run a function in the thread, and return what it returns or raise what it raises."""
        if threading.get_ident() == self._thread_id:
            return function()
        return self._pool.submit(function).result()

    def later(self, function: Callable[[], object]) -> None:
        """Run a function in the thread after all that was submitted before, without waiting; an error is logged."""

        def run() -> None:
            try:
                function()
            except Exception:
                logger.exception("what was computed ahead failed")

        self._pool.submit(run)


_NUM_TAGS = 8


@dataclass(frozen=True)
class Limits:
    """Limits of a demo."""

    max_mb: int = 200
    """Size of a file, in megabytes."""
    max_minutes: float = 60.0
    """Length of a track."""
    max_tracks: int = 64
    """Tracks stored at once, over all sessions."""
    max_answers: int = 2000
    """Files times questions of a batch."""


class DemoService:
    """Encodes tracks and answers questions about them, for all sessions.

    Args:
        listener: answers the questions.
        limits: on files.
        likes: JSON lines file for ratings of answers; None stores none.
    """

    def __init__(self, listener: Listener, *, limits: Limits = Limits(), likes: Path | None = None) -> None:
        self.compute = ComputeThread()
        """Where everything is computed."""
        self.listener = listener.computed_by(self.compute.run)
        self.limits = limits
        self._likes = likes
        self._handles = TrackHandles(limits.max_tracks)
        self._likes_lock = threading.Lock()

    @property
    def stores_likes(self) -> bool:
        """Whether ratings of answers are saved."""
        return self._likes is not None

    def add(self, path: str | Path | None, *, window: WindowChoice | None = None) -> TrackHandle:
        """Encode a file and store the track.

        Args:
            path: the file.
            window: which seconds are used, as in `mu_llama.load`; None as the listener was loaded.

        Raises:
            AudioError: if there is no file, it is too large or too long, can't be read or is silent.
        """
        track = self.encode(path, window=window)
        return self._handles.add(Path(str(path)), track, self.listener.tags(track))

    def encode(self, path: str | Path | None, *, window: WindowChoice | None = None) -> EncodedTrack:
        """Encode a file without storing the track; arguments and errors as for `add`."""
        if not path:
            raise AudioError("there is no track yet; upload, record or pick one first")
        path, max_s = Path(path), 60 * self.limits.max_minutes
        declared_s = self._check(path)
        # Of a file that doesn't state its length, little more than the limit is read to find it out.
        track = self.listener.listen(path, duration_s=max_s + 1 if declared_s is None else None, window=window)
        end_s = max(end for _, end in track.spans)
        if end_s > max_s:
            raise self._too_long(path, end_s)
        return track

    def _check(self, path: Path) -> float | None:
        """Refuse a file that is too large; returns the length that it states."""
        try:
            size_mb = path.stat().st_size / 1e6
        except OSError as error:
            raise AudioError(f"{path.name} is gone ({error.strerror}); upload it again") from error
        if size_mb > self.limits.max_mb:
            raise AudioError(f"{path.name} has {size_mb:.0f} MB, the most is {self.limits.max_mb}; cut or compress it")
        with open_audio(path) as stream:
            if stream.declared_s is not None and stream.declared_s > 60 * self.limits.max_minutes:
                raise self._too_long(path, stream.declared_s)
            return stream.declared_s

    def _too_long(self, path: Path, seconds: float) -> AudioError:
        limit = self.limits.max_minutes
        return AudioError(f"{path.name} lasts {seconds / 60:.0f} minutes, the most is {limit:.0f}; cut it")

    def handle(self, token: str) -> TrackHandle:
        """Look a track of a session up; errors as for `TrackHandles.get`."""
        return self._handles.get(token)

    def drop(self, token: str) -> None:
        """Remove a track."""
        self._handles.drop(token)

    def describe(self, handle: TrackHandle) -> str:
        """Say which seconds were used, and which model answers under which licence."""
        spans = ", ".join(f"{clock(start)}-{clock(end)}" for start, end in merge_spans(handle.track.spans))
        licences = ", ".join(sorted(set(self.listener.licences.values()))) or "see its model card"
        return f"Listened to {spans} of {handle.path.name}. {self.listener.name} answers ({licences})."

    def top_tags(self, handle: TrackHandle) -> dict[str, float]:
        """The likeliest tags in plain words; of a word in two tag vocabularies, the likelier."""
        words: dict[str, float] = {}
        for name, probability in handle.tags.items():
            words.setdefault(name.partition(":")[2].lower(), probability)
        return dict(list(words.items())[:_NUM_TAGS])

    def ask(
        self,
        session: DemoSession,
        question: str,
        *,
        options: GenerationOptions,
        keep: int | None = None,
        knn_weight: float | None = None,
    ) -> Iterator[list[Turn]]:
        """Answer a question of a session, yielding the conversation as it grows.

        A newer question, another track, a new conversation or a stop ends it: then it yields nothing more, and the
        computation ends. Closing the iterator does the same.

        Args:
            session: the session.
            question: the question.
            options: how the answer is generated.
            keep: how many of the earlier turns stay; None keeps all.
            knn_weight: share of an index's neighbours in the track's vector; None is the listener's own.

        Raises:
            AudioError: if the track was dropped, or there is none.
            QuestionError: if the question is empty, or the conversation too long.
        """
        if session.is_encoding:
            raise AudioError("the track is still being read; ask again in a moment")
        handle = self._handles.get(session.token)
        self.listener.check_question(question)
        run = session.begin_run()  # before the session is read: a new conversation supersedes this run from here on
        before = [turn for turn in session.turns[:keep] if turn.answer]
        track = handle.track if knn_weight is None else self.listener.with_blend(handle.track, knn_weight)
        stream = self.listener.stream_turns(track, [*before, Turn(question)], options=options)
        if not session.set_turns(run, before):
            return
        yield [*before, Turn(question)]
        text = ""
        for piece in stream:
            text += piece
            if not session.set_turns(run, [*before, Turn(question, text.strip())]):
                return
            yield session.turns
        if track is handle.track:
            self.read_ahead(session)

    def read_ahead(self, session: DemoSession) -> None:
        """Run the model over a session's conversation while the next question is typed; its answer begins sooner.

        The question itself costs that much less. Skipped once a question was asked, or another track came.
        """
        handle, turns = session.handle, session.turns

        def read() -> None:
            if handle is not None and session.handle is handle and session.turns is turns:
                self.listener.read_ahead(handle.track, [turn for turn in turns if turn.answer])

        self.compute.later(read)

    def like(self, session: DemoSession, index: int, liked: bool | None) -> None:
        """Append a rating of an answer to the file; None withdraws one.

        Args:
            session: the session.
            index: of the turn, from 0.
            liked: or not.

        Raises:
            QuestionError: if there is no such turn, or the file can't be written.
        """
        if self._likes is None:
            return
        if not 0 <= index < len(session.turns):
            raise QuestionError("this answer is no longer in the conversation; ask again to judge it")
        turn = session.turns[index]
        row = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "audio": session.track_name, "question": turn.question,
            "answer": turn.answer, "liked": liked, "model": self.listener.name,
        }  # fmt: skip
        try:
            with self._likes_lock, self._likes.open("a", encoding="utf-8") as file:
                file.write(to_line(row))
        except OSError as error:
            raise QuestionError(f"{self._likes} can't be written ({error.strerror}); the judgement is lost") from error


def clock(seconds: float) -> str:
    """Write seconds as minutes and seconds.

    Example:
        >>> clock(83.4)
        '1:23'
    """
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
