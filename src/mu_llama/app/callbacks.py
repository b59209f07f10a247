"""Callbacks of the page's controls: values of a page in, values out. Knows nothing of gradio."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mu_llama.app.assets import mel_picture
from mu_llama.app.batch import BatchRequest, TableRow, answer_files
from mu_llama.app.service import DemoService
from mu_llama.app.session import DemoSession, TrackHandle
from mu_llama.audio.windows import WindowChoice
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import MuLlamaError, QuestionError
from mu_llama.files import without_surrogates
from mu_llama.text.prompts import Turn

logger = logging.getLogger(__name__)

Message = dict[str, Any]
_EMPTY: tuple[Any, ...] = ("", None, None, [], [])


class Callbacks:
    """Callbacks of the page's controls.

    Args:
        service: encodes and answers.
        toast: shows a sentence.
        unchanged: gives the value that leaves a control as it is.
    """

    def __init__(
        self, service: DemoService, toast: Callable[[str], None], *, unchanged: Callable[[], Any] = lambda: None
    ) -> None:
        self.service = service
        self._toast = toast
        self._unchanged = unchanged

    @contextmanager
    def errors_as_toasts(self) -> Iterator[None]:
        """Show an error as a toast of one sentence; one that isn't this project's is logged with its traceback."""
        try:
            yield
        except MuLlamaError as error:
            self._toast(sentence(error))
        except Exception as error:
            logger.exception("a control of the page failed")
            name = type(error).__name__
            self._toast(f"Something went wrong ({name}); try again, and look into the server's log if it stays so.")

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function: where it fails or returns None, the page stays as it is; an error is a toast."""

        def run(*values: Any) -> Any:
            result = None
            with self.errors_as_toasts():
                result = function(*values)
            return self._unchanged() if result is None else result

        return run

    def guard_stream(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """Wrap a function that yields, as `guard` does; what it yielded before an error stays on the page."""

        def run(*values: Any) -> Iterator[Any]:
            succeeded = False
            with self.errors_as_toasts():
                yield from function(*values)
                succeeded = True
            if not succeeded:
                yield self._unchanged()

        return run

    def clear_track(self, path: str | None, session: DemoSession) -> tuple[Any, ...]:
        """Remove the old track before a new one is encoded; returns the status line and empty values for the rest."""
        self.service.drop(session.token)
        session.expect_track(is_coming=bool(path))
        return ("Encoding…" if path else "", *_EMPTY[1:])

    def load_track(self, path: str | None, session: DemoSession, window: WindowChoice) -> tuple[Any, ...] | None:
        """Encode a new track; returns the line about it, tags, picture, an empty chat, and no facts yet.

        A file that can't be used is a toast, and the page is as without a track. None if another track came meanwhile.
        """
        self.service.drop(session.token)
        change = session.expect_track(is_coming=bool(path))
        shown, handle = _EMPTY, None
        if path:
            with self.errors_as_toasts():
                handle, shown = self._add(path, window)
        if session.set_track(change, handle):
            self.service.read_ahead(session)
            return shown
        if handle is not None:
            self.service.drop(handle.token)
        return None

    def _add(self, path: str, window: WindowChoice) -> tuple[TrackHandle, tuple[Any, ...]]:
        handle = self.service.add(path, window=window)
        try:
            picture = mel_picture(Path(path), self.service.listener)
        except BaseException:
            self.service.drop(handle.token)
            raise
        if picture.problem:
            self._toast(f"{picture.problem}.")
        line = _plain(self.service.describe(handle))
        return handle, (line, self.service.top_tags(handle) or None, picture.image, [], [])

    def measure(self, session: DemoSession) -> list[list[str]] | None:
        """Rows of measured facts: name, value, confidence; None if another track came meanwhile."""
        handle = session.handle
        if handle is None:
            return []
        measured = handle.track.measure()
        if session.handle is not handle:
            return None
        if not measured:
            return [["nothing", "can't be measured here; the server's log says why", ""]]
        return [[name, fact.text, f"{fact.confidence:.2f}"] for name, fact in measured.items()]

    def ask(
        self, question: str, session: DemoSession, *settings: Any, keep: int | None = None
    ) -> Iterator[list[Message]]:
        """Ask a question and stream its answer; yields the whole conversation each time."""
        options, knn_weight = _options(settings)
        for turns in self.service.ask(session, question, options=options, keep=keep, knn_weight=knn_weight):
            yield _messages(turns)

    def regenerate(self, message: int, session: DemoSession, *settings: Any) -> Iterator[list[Message]]:
        """Answer an earlier question again; later turns are removed."""
        index = message // 2
        if index >= len(session.turns):
            raise QuestionError("this question is no longer in the conversation; ask again")
        return self.ask(session.turns[index].question, session, *settings, keep=index)

    def edit(self, message: int, text: str, session: DemoSession, *settings: Any) -> Iterator[list[Message]]:
        """Replace an earlier question; later turns are removed. A question that can't be asked changes nothing."""
        before, succeeded = list(session.turns), False
        with self.errors_as_toasts():
            yield from self.ask(text, session, *settings, keep=message // 2)
            succeeded = True
        if not succeeded:
            yield _messages(before)

    def judge(self, message: int, liked: bool | None, session: DemoSession) -> None:
        """Save whether an answer was liked."""
        self.service.like(session, message // 2, liked)

    def batch(
        self,
        run: int,
        paths: list[str] | None,
        questions: str,
        session: DemoSession,
        window: WindowChoice,
        *settings: Any,
    ) -> Iterator[tuple[list[TableRow], list[TableRow], str]]:
        """Fill the table file by file; yields the table, the rows to download, and how many files are done.

        Args:
            run: of the session, begun when the button was pressed: a stop ends it even while it is queued.
            paths: the files.
            questions: one a line.
            session: the session.
            window: which seconds are used.
            settings: as for `ask`.
        """
        files, (options, knn_weight) = paths or [], _options(settings)
        request = BatchRequest(questions.splitlines(), options, window, knn_weight)
        for done, rows in answer_files(self.service, session, files, request, run=run):
            yield rows, rows, f"{done} of {len(files)} files"


def _messages(turns: Sequence[Turn]) -> list[Message]:
    messages: list[Message] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.question})
        if turn.answer is not None:
            messages.append({"role": "assistant", "content": turn.answer})
    return messages


def _plain(text: str) -> str:
    """Escape Markdown in a file's name."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


def _options(settings: Sequence[Any]) -> tuple[GenerationOptions, float | None]:
    temperature, top_p, max_tokens, *knn = settings
    options = GenerationOptions(max_new_tokens=int(max_tokens), temperature=float(temperature), top_p=float(top_p))
    return options, float(knn[0]) if knn else None


_BEGINNINGS = ("the ", "there ", "this ", "no ", "nothing ")


def sentence(error: MuLlamaError) -> str:
    """An error as a toast: one sentence; names of files stay as they are."""
    text = without_surrogates(" ".join(str(error).split()))
    if text.startswith(_BEGINNINGS):
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
