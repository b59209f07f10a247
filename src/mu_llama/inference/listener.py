"""The facade: load a model, then ask it about tracks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch

from mu_llama.audio.source import repeatable
from mu_llama.checkpoints.assembling import Placement
from mu_llama.checkpoints.convert import ConvertOptions, convert_to_folder
from mu_llama.checkpoints.device_map import DeviceMap
from mu_llama.checkpoints.faiss_flat import read_faiss_flat
from mu_llama.checkpoints.open_model import PLANS, OpenedModel, open_model
from mu_llama.devices import choose_device, choose_dtype, home_folder
from mu_llama.encoders.cache import FeatureCache
from mu_llama.encoders.pooling import TrackFeatures
from mu_llama.errors import ConfigError
from mu_llama.generation import GenerationOptions
from mu_llama.hub import is_hub_id, push
from mu_llama.inference.answering import (
    Row,
    answer_rows,
    check_batch,
    check_question,
    make_row,
    read_ahead,
    rows_of,
    write_rows,
)
from mu_llama.inference.conversation import Conversation
from mu_llama.inference.extractor import Audio, FeatureExtractor, audio_name, measure_in_words
from mu_llama.inference.results import Answer, AnswerStream, ComputedOnce, EncodedTrack, Failure
from mu_llama.model.quantization import Quantization
from mu_llama.model.retrieval import BlendOptions, NeighbourBlend
from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.text.prompts import CAPTION_QUESTIONS, Turn

_DEFAULTS = GenerationOptions()
_CONVERSION = ConvertOptions()


class Listener:
    """Answers questions about tracks.

    Make one with `load`. Reading is thread-safe; a track is heard once and its features are cached.

    Args:
        opened: model, tokenizer, prompt template and encoder.
        hearing: turns sound into features.
        blend: neighbours to mix into each track's vector, if any.
    """

    def __init__(self, opened: OpenedModel, *, hearing: FeatureExtractor, blend: NeighbourBlend | None = None) -> None:
        self.opened = opened
        self.hearing = hearing
        self.blend = blend

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.opened.parts.name

    def listen(self, audio: Audio, *, offset_s: float = 0.0, duration_s: float | None = None) -> EncodedTrack:
        """Hear a track once, to ask many things about it.

        Raises:
            AudioError: if it can't be heard.
        """
        self.opened.process.check()
        start = time.perf_counter()
        source = repeatable(audio)
        features = self.hearing.hear(source, name=audio_name(audio), offset_s=offset_s, duration_s=duration_s)
        measure = ComputedOnce(partial(measure_in_words, source, offset_s=offset_s, duration_s=duration_s))
        return replace(self.recall(features, name=audio_name(audio), since=start), measure=measure)

    @torch.inference_mode()
    def recall(self, features: TrackFeatures, *, name: str, since: float | None = None) -> EncodedTrack:
        """Make a track out of features that were computed before.

        Args:
            features: (L, D) of this model's encoder.
            name: of the track.
            since: `time.perf_counter()` at which listening began; None for now.
        """
        start = time.perf_counter() if since is None else since
        conditioning = self.opened.model.condition(features.values[None], blend=self.blend)[0]
        listen_s = time.perf_counter() - start
        return EncodedTrack(name, conditioning, features.heard, listen_s=listen_s, features=features.values)

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
        audio: Audio | EncodedTrack,
        question: str,
        *,
        options: GenerationOptions = _DEFAULTS,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> AnswerStream:
        """Answer one question piece by piece; arguments and errors as for `ask`."""
        check_question(question)
        track = self._track(audio, offset_s, duration_s)
        return self.stream_turns(track, [Turn(question)], options=options)

    def stream_turns(
        self, track: EncodedTrack, turns: Sequence[Turn], *, options: GenerationOptions = _DEFAULTS
    ) -> AnswerStream:
        """Answer the last turn of a conversation piece by piece; every earlier turn has its answer.

        Raises:
            QuestionError: if the last question is empty or the conversation is too long.
        """
        row = make_row(self.opened, track, turns)
        return AnswerStream(piece for _, piece in write_rows(self.opened, [row], options))

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
            One record for each track and question, tracks outermost, in order. A track that can't be heard or a
            question that can't be asked gives `Failure` records, and the others are answered.
        """
        rows = self.iterate_many(
            audios, questions, options=options, batch_size=batch_size, offset_s=offset_s, duration_s=duration_s
        )
        return list(rows)

    def iterate_many(
        self,
        audios: Sequence[Audio | EncodedTrack],
        questions: Sequence[str],
        *,
        options: GenerationOptions = _DEFAULTS,
        batch_size: int = 16,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ) -> Iterator[Answer | Failure]:
        """Like `ask_many`, yielding records in order as batches finish; holds one batch at a time."""
        check_batch(audios, questions, batch_size)

        def rows() -> Iterator[Row | Failure]:
            for audio in audios:
                name = audio.name if isinstance(audio, EncodedTrack) else audio_name(audio)
                yield from rows_of(self.opened, partial(self._track, audio, offset_s, duration_s), questions, name=name)

        yield from answer_rows(self.opened, rows(), batch_size, options)

    def chat(self, audio: Audio | EncodedTrack, *, options: GenerationOptions = _DEFAULTS) -> Conversation:
        """Start a conversation about one track; earlier turns are part of every prompt.

        Raises:
            AudioError: if the track can't be heard.
        """
        track = self._track(audio, 0.0, None)
        return Conversation(self.stream_turns, track, options=options, read_ahead=partial(read_ahead, self.opened))

    def caption(
        self,
        audio: Audio | EncodedTrack,
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

    @classmethod
    def from_pretrained(cls, model: str | PathLike[str], **settings: Any) -> Listener:
        """Open a model folder or hub id: `load`, under the name that users of the hub's libraries look for."""
        return load(model, **settings)

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
            progress: follows the writing, in bytes.

        Raises:
            ConfigError: if the folder exists.
            CheckpointError: if it can't be written.
        """
        convert_to_folder(self.opened.parts, Path(folder), options, progress=progress)

    def push_to_hub(self, hub_id: str, *, private: bool = False, options: ConvertOptions = _CONVERSION) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub, with the token that its tools keep.

        Args:
            hub_id: `owner/name`; made where it isn't there.
            private: whether only its owner sees it.
            options: see `save_pretrained`.

        Returns:
            The address of the commit.

        Raises:
            ConfigError: if `hub_id` isn't one.
        """
        if not is_hub_id(hub_id):
            raise ConfigError(f"hub id is {hub_id!r}; expected owner/name, e.g. mu-llama/my-model")
        with tempfile.TemporaryDirectory(prefix="mu-llama-push-") as scratch:
            folder = Path(scratch) / hub_id.rpartition("/")[2]
            self.save_pretrained(folder, options=options)
            return push(folder, hub_id, private=private, message=f"Upload {self.name} with mu-llama")

    def _track(self, audio: Audio | EncodedTrack, offset_s: float, duration_s: float | None) -> EncodedTrack:
        if isinstance(audio, EncodedTrack):
            return audio
        return self.listen(audio, offset_s=offset_s, duration_s=duration_s)


def load(
    model: str | PathLike[str] = "mini",
    *,
    llama: str | PathLike[str] | None = None,
    encoder: str | PathLike[str] | None = None,
    knn_index: str | PathLike[str] | None = None,
    blend: BlendOptions | None = None,
    window: Literal["auto", "full", "published"] = "auto",
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantization | None = None,
    device_map: DeviceMap | None = None,
    use_cache: bool = True,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
) -> Listener:
    """Load a model: names, shapes and settings are checked now, weights are read when the first track was heard.

    Args:
        model: `mini` (the embedded default), a mu-llama model folder, a published checkpoint, a folder tree that
            holds one, or a hub id.
        llama: Meta, Hugging Face or GGUF LLaMA, or a hub id, beside a published checkpoint; params.json is enough
            where the checkpoint holds the LLaMA.
        encoder: MERT folder or hub id beside a published checkpoint that holds none.
        knn_index: faiss file of vectors to blend into each track's own.
        blend: how far; needs `knn_index`.
        window: which seconds are heard: `full` (all), `published` (the first minute), `auto` (the model's own).
        device: auto, cpu, cuda, cuda:N, mps.
        dtype: of the LLaMA: auto, bf16, fp16, fp32.
        quantize: `int8` or `int4` to keep the LLaMA's linear layers in so many bits, the adapter's in 8, and the
            encoder in memory only while it hears. int4 on a GPU needs the extra `quantize`.
        device_map: `auto` to spread the LLaMA over all GPUs, or a table of modules and devices; needs the extra
            `multi-gpu`.
        use_cache: keep features on disk, so that a track is encoded once.
        report: told what takes long (fetching, converting).
        progress: follows the loading of weights, in bytes.

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if its files are damaged or don't fit together.
        ConfigError: if settings contradict each other.

    Example:
        listener = load("mini")
        listener.ask("song.ogg", "Is there singing?").text
    """
    if window != "auto" and window not in PLANS:
        raise ConfigError(f"window is {window!r}; expected auto, {' or '.join(PLANS)}")
    if quantize not in (None, "int8", "int4"):
        raise ConfigError(f"quantize is {quantize!r}; expected int8 or int4")
    if (knn_index is None) != (blend is None):
        raise ConfigError("knn_index and blend belong together; give both or neither")
    chosen = choose_device(device)
    placement = Placement(chosen, choose_dtype(dtype, chosen), quantize=quantize, device_map=device_map)
    opened = open_model(
        model, llama=llama, encoder=encoder, placement=placement, home=home_folder(), report=report, progress=progress
    )
    cache = FeatureCache(home_folder() / "features") if use_cache else None
    plan = opened.plan if window == "auto" else PLANS[window]
    hearing = FeatureExtractor(opened.make_encoder, plan=plan, cache=cache, keep_encoder=quantize is None)
    neighbours = None
    if knn_index is not None and blend is not None:
        neighbours = NeighbourBlend(read_faiss_flat(Path(knn_index)), blend)
    return Listener(opened, hearing=hearing, blend=neighbours)
