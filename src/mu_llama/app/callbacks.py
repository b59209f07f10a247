"""What the page's controls do: values of a page in, values out; knows nothing of gradio."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mu_llama.app.assets import mel_picture
from mu_llama.app.batch import Asked, Row, answer_files, readable
from mu_llama.app.service import DemoService, Window
from mu_llama.app.session import TrackHandle, Visit
from mu_llama.errors import MuLlamaError, QuestionError
from mu_llama.generation import GenerationOptions
from mu_llama.text.prompts import Turn

logger = logging.getLogger(__name__)

Message = dict[str, Any]
_EMPTY: tuple[Any, ...] = ("", None, None, [], [])


class Callbacks:
    """What the page's controls call.

    Args:
        desk: answers.
        toast: shows a sentence.
        unchanged: gives the value that leaves a control as it is.
    """

    def __init__(
        self, desk: DemoService, toast: Callable[[str], None], *, unchanged: Callable[[], Any] = lambda: None
    ) -> None:
        self.desk = desk
        self._toast = toast
        self._unchanged = unchanged

    @contextmanager
    def errors_as_toasts(self) -> Iterator[None]:
        """Turn an error into a toast of one sentence; one that isn't this project's goes to the log as a whole."""
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

    def expect(self, path: str | None, visit: Visit) -> tuple[Any, ...]:
        """Let the old track go at once, before the new one is heard; gives the line and all that is shown, empty."""
        self.desk.drop(visit.token)
        visit.expect(is_coming=bool(path))
        return ("Listening…" if path else "", *_EMPTY[1:])

    def hear(self, path: str | None, visit: Visit, window: Window) -> tuple[Any, ...] | None:
        """Take a new track in; gives the line of what was heard, tags, picture, an empty chat, and no facts yet.

        What can't be heard is a toast, and the page is as without a track. None if another track came meanwhile.
        """
        self.desk.drop(visit.token)
        hearing = visit.expect(is_coming=bool(path))
        shown, held = _EMPTY, None
        if path:
            with self.errors_as_toasts():
                held, shown = self._take(path, window)
        if visit.arrive(hearing, held):
            self.desk.read_ahead(visit)
            return shown
        if held is not None:
            self.desk.drop(held.token)
        return None

    def _take(self, path: str, window: Window) -> tuple[TrackHandle, tuple[Any, ...]]:
        held = self.desk.take(path, window=window)
        try:
            picture = mel_picture(Path(path), self.desk.compute)
        except BaseException:
            self.desk.drop(held.token)
            raise
        if picture.problem:
            self._toast(f"{picture.problem}.")
        line = _plain(self.desk.heard_in_words(held))
        return held, (line, self.desk.top_tags(held) or None, picture.image, [], [])

    def measure(self, visit: Visit) -> list[list[str]] | None:
        """Measured facts, after the rest is there: name, value, how sure; None if another track came meanwhile."""
        held = visit.held
        if held is None:
            return []
        measured = held.track.measure()
        if visit.held is not held:
            return None
        if not measured:
            return [["nothing", "can't be measured here; the server's log says why", ""]]
        return [[name, fact.text, f"{fact.confidence:.2f}"] for name, fact in measured.items()]

    def ask(self, question: str, visit: Visit, *settings: Any, keep: int | None = None) -> Iterator[list[Message]]:
        """Put a question and stream its answer: gives the whole conversation each time."""
        options, knn_weight = _options(settings)
        for turns in self.desk.ask(visit, question, options=options, keep=keep, knn_weight=knn_weight):
            yield _messages(turns)

    def regenerate(self, message: int, visit: Visit, *settings: Any) -> Iterator[list[Message]]:
        """Answer an earlier question anew; what came after it goes."""
        place = message // 2
        if place >= len(visit.turns):
            raise QuestionError("this conversation is no longer held; ask again")
        return self.ask(visit.turns[place].question, visit, *settings, keep=place)

    def edit(self, message: int, text: str, visit: Visit, *settings: Any) -> Iterator[list[Message]]:
        """Ask an earlier question in other words; what came after it goes. What can't be asked stays as it was."""
        before, asked = list(visit.turns), False
        with self.errors_as_toasts():
            yield from self.ask(text, visit, *settings, keep=message // 2)
            asked = True
        if not asked:
            yield _messages(before)

    def judge(self, message: int, liked: bool | None, visit: Visit) -> None:
        """Save whether an answer was liked."""
        self.desk.like(visit, message // 2, liked)

    def batch(
        self, run: int, paths: list[str] | None, questions: str, visit: Visit, window: Window, *settings: Any
    ) -> Iterator[tuple[list[Row], list[Row], str]]:
        """Fill the table file by file; gives the table, the rows to download, how far it is.

        Args:
            run: of the visit, begun when the button was pressed: a stop ends it even while it waits in the queue.
            paths: the files.
            questions: one a line.
            visit: the session.
            window: which seconds are heard.
            settings: as for `ask`.
        """
        files, (options, knn_weight) = paths or [], _options(settings)
        asked = Asked(questions.splitlines(), options, window, knn_weight)
        for done, rows in answer_files(self.desk, visit, files, asked, run=run):
            yield rows, rows, f"{done} of {len(files)} files"


def _messages(turns: Sequence[Turn]) -> list[Message]:
    said: list[Message] = []
    for turn in turns:
        said.append({"role": "user", "content": turn.question})
        if turn.answer is not None:
            said.append({"role": "assistant", "content": turn.answer})
    return said


def _plain(text: str) -> str:
    """Keep Markdown from reading a file's name as its own."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


def _options(settings: Sequence[Any]) -> tuple[GenerationOptions, float | None]:
    temperature, top_p, most, *knn = settings
    options = GenerationOptions(max_new_tokens=int(most), temperature=float(temperature), top_p=float(top_p))
    return options, float(knn[0]) if knn else None


_BEGINNINGS = ("the ", "there ", "this ", "no ", "nothing ")


def sentence(error: MuLlamaError) -> str:
    """An error as a toast: one sentence; names of files stay as they are."""
    text = readable(" ".join(str(error).split()))
    if text.startswith(_BEGINNINGS):
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
