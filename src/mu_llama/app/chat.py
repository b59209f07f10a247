"""The conversation behind the page: tracks come in, questions are answered, nothing here knows gradio."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_llama.app.held import Held, HeldTracks
from mu_llama.audio.read import open_audio
from mu_llama.audio.windows import merge_spans
from mu_llama.errors import AudioError, QuestionError
from mu_llama.generation import GenerationOptions
from mu_llama.listener import Listener
from mu_llama.prompts import Turn

CAPTION_QUESTION = "Write a caption for text-to-music."
_TOP_TAGS = 8


@dataclass(frozen=True)
class Limits:
    """What a demo takes."""

    most_mb: int = 200
    """Size of a file, in megabytes."""
    most_minutes: float = 60.0
    """Length of a track."""
    most_tracks: int = 64
    """Tracks held at once, over all sessions."""


class Stopped:
    """Tells a running answer to stop; one for each session."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __deepcopy__(self, _: Any) -> Stopped:
        return Stopped()  # each session gets its own

    def stop(self) -> None:
        """End the answer that is being written."""
        self._event.set()

    def clear(self) -> None:
        """Begin a new answer."""
        self._event.clear()

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()


class Desk:
    """Takes tracks in and answers about them, for all sessions.

    Args:
        listener: who answers.
        limits: on files.
        likes: JSON lines file for judgements of answers; None keeps none.
    """

    def __init__(self, listener: Listener, *, limits: Limits = Limits(), likes: Path | None = None) -> None:
        self.listener = listener
        self.limits = limits
        self._likes = likes
        self._held = HeldTracks(limits.most_tracks)
        self._writing = threading.Lock()

    @property
    def keeps_likes(self) -> bool:
        """Whether judgements are saved."""
        return self._likes is not None

    def take(self, path: str | Path | None) -> Held:
        """Hear a file and hold it.

        Raises:
            AudioError: if there is none, it is too large or too long, or it can't be heard.
        """
        if not path:
            raise AudioError("there is no track yet; upload, record or pick one first")
        path = Path(path)
        self._check(path)
        track = self.listener.listen(path)
        end_s = max(end for _, end in track.heard)
        if end_s > 60 * self.limits.most_minutes:
            raise self._too_long(path, end_s)
        encoder = self.listener.hearing.encoder
        read_tags = getattr(encoder, "tag_probabilities", None)  # MERT has no tagger
        tags = read_tags(track.features) if read_tags is not None and track.features is not None else {}
        return self._held.add(path, track, tags)

    def _check(self, path: Path) -> None:
        try:
            size_mb = path.stat().st_size / 1e6
        except OSError as error:
            raise AudioError(f"{path.name} is gone ({error.strerror}); upload it again") from error
        if size_mb > self.limits.most_mb:
            raise AudioError(f"{path.name} has {size_mb:.0f} MB, the most is {self.limits.most_mb}; cut or compress it")
        with open_audio(path) as stream:
            if stream.declared_s is not None and stream.declared_s > 60 * self.limits.most_minutes:
                raise self._too_long(path, stream.declared_s)

    def _too_long(self, path: Path, seconds: float) -> AudioError:
        most = self.limits.most_minutes
        return AudioError(f"{path.name} lasts {seconds / 60:.0f} minutes, the most is {most:.0f}; cut it")

    def held(self, token: str) -> Held:
        """Find a track of a session; errors as for `HeldTracks.get`."""
        return self._held.get(token)

    def drop(self, token: str) -> None:
        """Give a track up."""
        self._held.drop(token)

    def heard_in_words(self, held: Held) -> str:
        """Say which seconds were heard, and which model answers under which licence."""
        parts = self.listener.opened.parts
        spans = ", ".join(f"{clock(start)}-{clock(end)}" for start, end in merge_spans(held.track.heard))
        licences = ", ".join(sorted(set(parts.licences.values()))) or "see its model card"
        return f"Heard {spans} of {held.path.name}. {self.listener.name} answers ({licences})."

    def top_tags(self, held: Held) -> dict[str, float]:
        """The likeliest tags in plain words; of a word that two taggers know, the surer."""
        words: dict[str, float] = {}
        for name, probability in held.tags.items():
            words.setdefault(name.partition(":")[2].lower(), probability)
        return dict(list(words.items())[:_TOP_TAGS])

    def stream(
        self, token: str, turns: Sequence[Turn], *, options: GenerationOptions, stopped: Stopped | None = None
    ) -> Iterator[str]:
        """Answer the last turn, yielding the text so far; what was said before is in the prompt.

        Closing the iterator, or setting `stopped`, ends the computation.

        Raises:
            AudioError: if the track isn't held.
            QuestionError: if the question is empty, or the conversation too long.
        """
        held = self._held.get(token)
        text = ""
        for piece in self.listener.stream_turns(held.track, turns, options=options):
            text += piece
            yield text.strip()
            if stopped is not None and stopped.is_set:
                return
        if not text.strip():
            yield "(no answer)"

    def like(self, *, token: str, question: str, answer: str, liked: bool | None) -> None:
        """Append a judgement to the file; None takes one back.

        Raises:
            QuestionError: if the file can't be written.
        """
        if self._likes is None:
            return
        row = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "audio": self._held.get(token).path.name,
            "question": question, "answer": answer, "liked": liked, "model": self.listener.name,
        }  # fmt: skip
        try:
            with self._writing, self._likes.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise QuestionError(f"{self._likes} can't be written ({error.strerror}); the judgement is lost") from error


def turns_of(messages: Sequence[dict[str, Any]], *, upto: int | None = None) -> list[Turn]:
    """Read a chat's messages (role and content) as turns; the last has no answer where none was given.

    Args:
        messages: user and assistant by turns.
        upto: take only so many messages.
    """
    turns: list[Turn] = []
    for message in list(messages)[:upto]:
        text = message_text(message["content"])
        if message["role"] == "user":
            turns.append(Turn(text))
        elif turns and turns[-1].answer is None:
            turns[-1] = Turn(turns[-1].question, text)
    return turns


def message_text(content: Any) -> str:
    """The plain text of a message, which gradio may cut into parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return str(content.get("text", ""))
    return "".join(message_text(part) for part in content or ())


def clock(seconds: float) -> str:
    """Write seconds as minutes and seconds.

    Example:
        >>> clock(83.4)
        '1:23'
    """
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
