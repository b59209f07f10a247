"""Encodes tracks for one model: audio becomes features, features become the model's conditioning."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt

from mu_llama.arrays import FloatArray
from mu_llama.audio.source import repeatable
from mu_llama.audio.waveform import Samples
from mu_llama.audio.windows import ListenOptions, WindowChoice, plan_by_name
from mu_llama.encoders.musicnn.log_mel import RATE_HZ
from mu_llama.encoders.pooling import TrackFeatures
from mu_llama.engine.prefix import PrefixCache
from mu_llama.inference.extractor import Audio, FeatureExtractor, log_mel, measure_in_words, source_name
from mu_llama.inference.open_model import OpenedModel
from mu_llama.inference.results import Compute, ComputedOnce, EncodedTrack, compute_here
from mu_llama.model.retrieval import NeighbourBlend


class TrackEncoder:
    """Encodes tracks, so that questions can be asked about them.

    Args:
        opened: model, tokenizer, prompt template and encoder.
        extractor: turns audio into features.
        blend: neighbours to mix into each track's vector, if any.
        compute: runs whatever computes on the model; see `computed_by`.
    """

    def __init__(
        self,
        opened: OpenedModel,
        *,
        extractor: FeatureExtractor,
        blend: NeighbourBlend | None = None,
        compute: Compute = compute_here,
    ) -> None:
        self.opened = opened
        self.extractor = extractor
        self.blend = blend
        self._compute = compute

    @property
    def window(self) -> WindowChoice:
        """Which seconds of a track are encoded: `auto` for the model's own window plan, else the plan's name."""
        plan = self.extractor.plan
        return "auto" if plan == self.opened.plan else plan.name

    @property
    def hearing(self) -> FeatureExtractor:
        """Deprecated name of `extractor`."""
        warnings.warn("Listener.hearing is now Listener.extractor", DeprecationWarning, stacklevel=2)
        return self.extractor

    def computed_by(self, compute: Compute) -> Self:
        """The same model, with whatever runs on encoder or model passed to a function, e.g. one with its own thread."""
        extractor = self.extractor.computed_by(compute)
        return type(self)(self.opened, extractor=extractor, blend=self.blend, compute=compute)

    def listen(
        self,
        audio: Audio,
        *,
        offset_s: float = 0.0,
        duration_s: float | None = None,
        window: WindowChoice | None = None,
    ) -> EncodedTrack:
        """Encode a track once, to ask many questions about it.

        Args:
            audio: path, bytes, binary file or `Waveform`.
            offset_s: first second that is encoded.
            duration_s: how many seconds are encoded at most; None is up to the end.
            window: which seconds of that part are encoded, as in `load`; None for the choice made in `load`.

        Raises:
            AudioError: if it can't be read or is silent.
            ConfigError: if there is no such window.
        """
        plan = None if window is None else plan_by_name(window) or self.opened.plan
        return self.encode(audio, ListenOptions(offset_s, duration_s, plan))

    def encode(self, audio: Audio | EncodedTrack, options: ListenOptions) -> EncodedTrack:
        """Encode a part of a track, as `listen` does; a track that is already encoded is returned."""
        if isinstance(audio, EncodedTrack):
            return audio
        self.opened.process.check()
        start, name, source = time.perf_counter(), source_name(audio), repeatable(audio)
        features = self.extractor.extract(source, name=name, options=options)
        measure = ComputedOnce(partial(measure_in_words, source, options=options))
        return replace(self.recall(features, name=name, since=start), measure=measure)

    def recall(self, features: TrackFeatures, *, name: str, since: float | None = None) -> EncodedTrack:
        """Make a track out of features that were computed before.

        Args:
            features: (L, D) of this model's encoder.
            name: of the track.
            since: `time.perf_counter()` at which encoding began; None for now.
        """
        start = time.perf_counter() if since is None else since
        conditioning = self._condition(features.values, self.blend)
        listen_s = time.perf_counter() - start
        return EncodedTrack(name, conditioning, features.spans, listen_s=listen_s, features=features.values)

    def with_blend(self, track: EncodedTrack, weight: float) -> EncodedTrack:
        """A track with another share of the index's neighbours; the same track where that changes nothing."""
        blend = self.blend
        if blend is None or track.features is None or weight == blend.options.weight:
            return track
        changed = NeighbourBlend(blend.vectors, replace(blend.options, weight=weight))
        # A new prefix cache: the old one holds other audio tokens.
        return replace(track, conditioning=self._condition(track.features, changed), prefix=PrefixCache())

    def _condition(self, features: FloatArray, blend: NeighbourBlend | None) -> FloatArray:
        """Turn features (L, D) into conditioning: (Q, A), or (N, H) with audio tokens."""
        return self._compute(lambda: self.opened.engine.condition(features, blend=blend))

    log_mel_rate_hz = RATE_HZ
    """Sample rate that `log_mel` expects."""

    def log_mel(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Log mel spectrogram for display: mono samples (S,) at `log_mel_rate_hz` to (frames, bands)."""
        return self._compute(lambda: log_mel(samples))

    def tags(self, track: EncodedTrack) -> dict[str, float]:
        """Probabilities of the encoder's own tags, the likeliest first; empty where it has no tagger."""
        return {} if track.features is None else self.extractor.tags(track.features)
