"""From a source of sound to its features, through the cache, and to its measured facts in words."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from mu_llama.audio.downmix import Downmix
from mu_llama.audio.facts import Facts, measure_facts
from mu_llama.audio.read import AudioWarning, warn_of_cancelling
from mu_llama.audio.source import AudioSource, display_name, repeatable, source_label
from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.audio.windows import WHOLE, ListenOptions, Window, WindowPlan, stream_windows
from mu_llama.encoders.cache import FeatureCache, content_hash, feature_key
from mu_llama.encoders.musicnn.log_mel import LogMel
from mu_llama.encoders.musicnn.weights import read_musicnn_weights
from mu_llama.encoders.pooling import TrackFeatures, encode_track
from mu_llama.encoders.protocol import Encoder, Tagger
from mu_llama.errors import AudioError, MuLlamaError
from mu_llama.inference.results import Compute, compute_here
from mu_llama.text.fact_prompts import MeasuredFact

logger = logging.getLogger(__name__)

Audio = AudioSource | Waveform

SILENCE_PEAK = 1e-4
"""Peaks below this count as silence: -80 dBFS, a little above the noise of 16-bit dither."""


def source_name(audio: Audio) -> str:
    """Name a source for answers and messages."""
    if isinstance(audio, (str, os.PathLike)):
        return os.fsdecode(audio)
    if isinstance(audio, Waveform):
        return "waveform"
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return "bytes"
    name = getattr(audio, "name", None)  # a number where an open file has no name
    return name if isinstance(name, str) and name else "file object"


class FeatureExtractor:
    """Computes the features of tracks with one encoder, each track once.

    Args:
        make_encoder: builds the encoder; called on first use.
        plan: which seconds of a track are encoded, unless the options of a call say otherwise.
        cache: where features are stored; None stores nothing.
        keep_encoder: False drops the encoder after each track, to need less memory, and builds it again for the next.
        compute: runs the encoder.
    """

    def __init__(
        self,
        make_encoder: Callable[[], Encoder],
        *,
        plan: WindowPlan,
        cache: FeatureCache | None,
        keep_encoder: bool = True,
        compute: Compute = compute_here,
    ) -> None:
        self._make_encoder = make_encoder
        self.plan = plan
        self.cache = cache
        self.keep_encoder = keep_encoder
        self._compute = compute
        self._encoder: Encoder | None = None
        self._identity: tuple[str, str] | None = None
        self._has_tagger: bool | None = None

    @property
    def encoder(self) -> Encoder:
        """The encoder, built on first use."""
        encoder = self._encoder
        if encoder is None:
            encoder = self._encoder = self._compute(self._make_encoder)
            self._has_tagger = isinstance(encoder, Tagger)
        return encoder

    def computed_by(self, compute: Compute) -> FeatureExtractor:
        """The same extractor, with its encoder built and run by `compute`; an encoder that is kept is shared."""
        make_encoder = (lambda: self.encoder) if self.keep_encoder else self._make_encoder
        return FeatureExtractor(
            make_encoder, plan=self.plan, cache=self.cache, keep_encoder=self.keep_encoder, compute=compute
        )

    def extract(self, audio: Audio, *, name: str | None = None, options: ListenOptions = WHOLE) -> TrackFeatures:
        """Compute or look up the features of one track.

        Args:
            audio: path, bytes, open binary file or waveform. An open file is left where it stood.
            name: what to call it in messages; None for its own name.
            options: which part of the track.

        Returns:
            Features (L, D) and the seconds they were made of.

        Raises:
            AudioError: if the source can't be read, holds nothing or is silent.
        """
        try:
            return self._cached(repeatable(audio), source_name(audio) if name is None else name, options)
        finally:
            self._drop_encoder()

    def tags(self, features: npt.NDArray[np.float32]) -> dict[str, float]:
        """Probabilities of the encoder's own tags, the likeliest first; empty where it has no tagger.

        Args:
            features: (L, D), from `extract`.
        """
        if self._has_tagger is False:
            return {}
        encoder = self.encoder
        try:
            return self._compute(lambda: encoder.tag_probabilities(features)) if isinstance(encoder, Tagger) else {}
        finally:
            self._drop_encoder()

    def _drop_encoder(self) -> None:
        if not self.keep_encoder:
            self._encoder = None

    def _cached(self, audio: Audio, name: str, options: ListenOptions) -> TrackFeatures:
        if self.cache is None:
            return self._encode(audio, name, options)
        if self._identity is None:  # known also after the encoder is dropped
            self._identity = self.encoder.name, self.encoder.fingerprint
        encoder_name, fingerprint = self._identity
        key = feature_key(
            encoder_name=encoder_name,
            encoder_fingerprint=fingerprint,
            content=content_hash(audio),
            window_plan=(options.window or self.plan).key,
            offset_s=options.offset_s,
            duration_s=options.duration_s,
        )
        return self.cache.get_or_compute(key, lambda: self._encode(audio, name, options))

    def _encode(self, audio: Audio, name: str, options: ListenOptions) -> TrackFeatures:
        mix, plan = Downmix(), options.window or self.plan
        options = ListenOptions(options.offset_s, options.duration_s, plan)

        def encode() -> TrackFeatures:
            encoder = self.encoder
            windows = stream_windows(audio, rate_hz=encoder.rate_hz, options=options, mix=mix)
            computed = cast("Encoder", _ComputedEncoder(encoder, self._compute))
            return encode_track(computed, _refuse_silence(windows, name, mix), weighting=plan.weighting)

        try:
            features = encode()
            if mix.settle():
                warn_of_cancelling(source_label(audio), mix)
                features = encode()
            return features
        except AudioError as error:
            if Path(name).name in str(error):
                raise
            raise AudioError(f"{display_name(name)}: {error}") from error


@dataclass(frozen=True)
class _ComputedEncoder:
    """Runs `encode` through `compute`; the audio is decoded and resampled in the calling thread."""

    encoder: Encoder
    compute: Compute

    def encode(self, window: Waveform) -> npt.NDArray[np.float32]:
        return self.compute(lambda: self.encoder.encode(window))


def _refuse_silence(windows: Iterator[Window], name: str, mix: Downmix) -> Iterator[Window]:
    """Pass windows on, and fail at the end if all were silent, unless the channels only cancel each other."""
    peak = 0.0
    for window in windows:
        peak = max(peak, float(np.abs(window.waveform.samples).max()))
        yield window
    if peak < SILENCE_PEAK and not mix.cancels:
        raise AudioError(f"{display_name(name)}: silent (peak below -80 dBFS); expected sound: check the recording")


def log_mel(samples: Samples) -> npt.NDArray[np.float32]:
    """Compute the log mel spectrogram of mono samples (S,) at 16 kHz, (frames, bands), for display."""
    return _log_mel()(samples)


@cache
def _log_mel() -> LogMel:
    return LogMel(read_musicnn_weights().tensors["mel_filters"])


def in_words(facts: Facts) -> dict[str, MeasuredFact]:
    """Put measured facts into words, by topic; what wasn't measured is left out.

    Example:
        >>> in_words(Facts(205.4, None, None, None))["duration"].text
        '3:25 minutes'
    """
    words = {"duration": MeasuredFact(f"{int(facts.duration_s // 60)}:{int(facts.duration_s % 60):02d} minutes")}
    if (tempo := facts.tempo_bpm) is not None:
        words["tempo"] = MeasuredFact(f"{float(tempo.value):.0f} BPM", tempo.confidence)
    if (key := facts.key) is not None:
        words["key"] = MeasuredFact(str(key.value), key.confidence)
    if (level := facts.loudness_lufs) is not None:
        words["loudness"] = MeasuredFact(f"{float(level.value):.1f} LUFS", level.confidence)
    return words


def measure_in_words(audio: AudioSource | Waveform, options: ListenOptions = WHOLE) -> dict[str, MeasuredFact]:
    """Measure a track for a prompt; where that fails, log the reason and return nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)  # given when the track was encoded
            return in_words(measure_facts(audio, offset_s=options.offset_s, duration_s=options.duration_s))
    except (MuLlamaError, OSError, ValueError) as error:
        logger.warning("tempo and key are not measured: %s", error)
        return {}
