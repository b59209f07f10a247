"""The conversation behind the page: tracks come in, questions are answered, nothing here knows gradio."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch

from mu_llama.app.compute_thread import ComputeThread
from mu_llama.app.session import TrackHandle, TrackHandles, Visit
from mu_llama.audio.read import open_audio
from mu_llama.audio.windows import WindowPlan, merge_spans
from mu_llama.checkpoints.open_model import PLANS
from mu_llama.errors import AudioError, QuestionError
from mu_llama.files import to_line
from mu_llama.generation import GenerationOptions
from mu_llama.inference.answering import check_question, read_ahead
from mu_llama.inference.extractor import FeatureExtractor, measure_in_words
from mu_llama.inference.listener import Listener
from mu_llama.inference.results import EncodedTrack
from mu_llama.model.prefix_cache import PrefixCache
from mu_llama.model.retrieval import NeighbourBlend
from mu_llama.text.prompts import Turn

if TYPE_CHECKING:
    from mu_llama.encoders.musicnn.encoder import MusicnnEncoder

Window = Literal["auto", "full", "published"]
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
    most_answers: int = 2000
    """Files times questions of a batch."""


class DemoService:
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
        self._held = TrackHandles(limits.most_tracks)
        self._writing = threading.Lock()
        self.compute = ComputeThread()
        """Where everything is computed."""
        self._listeners: dict[WindowPlan, Listener] = {}

    @property
    def keeps_likes(self) -> bool:
        """Whether judgements are saved."""
        return self._likes is not None

    @property
    def window(self) -> Window:
        """Which seconds are heard unless a visitor chooses: as the listener was loaded."""
        plan = self.listener.hearing.plan
        return "auto" if plan == self.listener.opened.plan else plan.name

    def take(self, path: str | Path | None, *, window: Window = "auto") -> TrackHandle:
        """Hear a file and hold it.

        Args:
            path: the file.
            window: which seconds are heard, as `mu_llama.load` has it.

        Raises:
            AudioError: if there is none, it is too large or too long, or it can't be heard.
        """
        track = self.hear(path, window=window)
        encoder = self.listener.opened.parts.encoder.spec
        if encoder.get("kind") != "musicnn" or track.features is None:
            return self._held.add(Path(str(path)), track, {})  # MERT has no tagger
        tagger, features = cast("MusicnnEncoder", self.listener.hearing.encoder), track.features
        return self._held.add(Path(str(path)), track, self.compute.run(lambda: tagger.tag_probabilities(features)))

    def hear(self, path: str | Path | None, *, window: Window = "auto") -> EncodedTrack:
        """Hear a file without holding it; arguments and errors as for `take`."""
        if not path:
            raise AudioError("there is no track yet; upload, record or pick one first")
        path, most_s = Path(path), 60 * self.limits.most_minutes
        declared_s = self._check(path)
        # A file that doesn't say how long it is isn't heard for hours to find out.
        most = None if declared_s is not None else most_s + 1
        listener, start = self._listener(window), time.perf_counter()
        features = listener.hearing.hear(path, duration_s=most)
        track = self.compute.run(lambda: listener.recall(features, name=str(path), since=start))
        end_s = max(end for _, end in track.heard)
        if end_s > most_s:
            raise self._too_long(path, end_s)
        return replace(track, measure=cache(partial(measure_in_words, path, offset_s=0.0, duration_s=most)))

    def _listener(self, window: Window) -> Listener:
        """The listener of a window; all share one encoder, unless it is dropped after each track."""
        own = self.listener
        plan = own.opened.plan if window == "auto" else PLANS[window]
        if plan not in self._listeners:
            keep = own.hearing.keep_encoder
            # Built here, not when first asked for: Python 3.11 has one lock for the encoders of all hearings.
            shared = self.compute.encoder(lambda: own.hearing.encoder) if keep else None
            make = (lambda: shared) if shared else partial(self.compute.encoder, own.opened.make_encoder)
            hearing = FeatureExtractor(make, plan=plan, cache=own.hearing.cache, keep_encoder=keep)
            self._listeners[plan] = Listener(own.opened, hearing=hearing, blend=own.blend)
        return self._listeners[plan]

    def _check(self, path: Path) -> float | None:
        """Refuse what is too large; gives the length that the file states."""
        try:
            size_mb = path.stat().st_size / 1e6
        except OSError as error:
            raise AudioError(f"{path.name} is gone ({error.strerror}); upload it again") from error
        if size_mb > self.limits.most_mb:
            raise AudioError(f"{path.name} has {size_mb:.0f} MB, the most is {self.limits.most_mb}; cut or compress it")
        with open_audio(path) as stream:
            if stream.declared_s is not None and stream.declared_s > 60 * self.limits.most_minutes:
                raise self._too_long(path, stream.declared_s)
            return stream.declared_s

    def _too_long(self, path: Path, seconds: float) -> AudioError:
        most = self.limits.most_minutes
        return AudioError(f"{path.name} lasts {seconds / 60:.0f} minutes, the most is {most:.0f}; cut it")

    def held(self, token: str) -> TrackHandle:
        """Find a track of a session; errors as for `TrackHandles.get`."""
        return self._held.get(token)

    def drop(self, token: str) -> None:
        """Give a track up."""
        self._held.drop(token)

    def heard_in_words(self, held: TrackHandle) -> str:
        """Say which seconds were heard, and which model answers under which licence."""
        parts = self.listener.opened.parts
        spans = ", ".join(f"{clock(start)}-{clock(end)}" for start, end in merge_spans(held.track.heard))
        licences = ", ".join(sorted(set(parts.licences.values()))) or "see its model card"
        return f"Heard {spans} of {held.path.name}. {self.listener.name} answers ({licences})."

    def top_tags(self, held: TrackHandle) -> dict[str, float]:
        """The likeliest tags in plain words; of a word that two taggers know, the surer."""
        words: dict[str, float] = {}
        for name, probability in held.tags.items():
            words.setdefault(name.partition(":")[2].lower(), probability)
        return dict(list(words.items())[:_TOP_TAGS])

    def ask(
        self,
        visit: Visit,
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
            visit: the session.
            question: what is asked.
            options: how the answer is written.
            keep: how many of the earlier turns stay; None keeps all.
            knn_weight: share of an index's neighbours in the track's vector; None is the listener's own.

        Raises:
            AudioError: if the track isn't held any more, or there is none.
            QuestionError: if the question is empty, or the conversation too long.
        """
        if visit.is_hearing:
            raise AudioError("the track is still being heard; ask again in a moment")
        held = self._held.get(visit.token)
        check_question(question)
        run = visit.begin()  # before anything of the visit is read: a new conversation overtakes this one from here on
        before = [turn for turn in visit.turns[:keep] if turn.answer]
        track = self.blended(held.track, knn_weight)
        stream = self.listener.stream_turns(track, [*before, Turn(question)], options=options)
        if not visit.say(run, before):
            return
        yield [*before, Turn(question)]
        text = ""
        for piece in self.compute.each(iter(stream)):
            text += piece
            if not visit.say(run, [*before, Turn(question, text.strip())]):
                return
            yield visit.turns
        if track is held.track:
            self.read_ahead(visit)

    def read_ahead(self, visit: Visit) -> None:
        """Read what stands before a session's next question while it is being typed, so that its answer begins sooner.

        It costs what the question itself would have cost more. Left out once that was asked, or another track came.
        """
        held, turns = visit.held, visit.turns

        def read() -> None:
            if held is not None and visit.held is held and visit.turns is turns:
                read_ahead(self.listener.opened, held.track, [turn for turn in turns if turn.answer])

        self.compute.later(read)

    def blended(self, track: EncodedTrack, weight: float | None) -> EncodedTrack:
        """A track with another share of the index's neighbours; None is the listener's own."""
        blend = self.listener.blend
        if weight is None or blend is None or track.features is None or weight == blend.options.weight:
            return track
        changed = NeighbourBlend(blend.vectors, replace(blend.options, weight=weight))
        condition, features = torch.inference_mode()(self.listener.opened.model.condition), track.features[None]
        conditioning = self.compute.run(lambda: condition(features, blend=changed)[0])
        return replace(track, conditioning=conditioning, prefix=PrefixCache())  # what was kept is of other tokens

    def like(self, visit: Visit, place: int, liked: bool | None) -> None:
        """Append a judgement of an answer to the file; None takes one back.

        Args:
            visit: the session.
            place: of the turn, from 0.
            liked: or not.

        Raises:
            QuestionError: if there is no such turn, or the file can't be written.
        """
        if self._likes is None:
            return
        if not 0 <= place < len(visit.turns):
            raise QuestionError("this answer is no longer held; ask again to judge it")
        turn = visit.turns[place]
        row = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "audio": visit.track_name, "question": turn.question,
            "answer": turn.answer, "liked": liked, "model": self.listener.name,
        }  # fmt: skip
        try:
            with self._writing, self._likes.open("a", encoding="utf-8") as file:
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
