"""From a source of sound to its features, through the cache, and to its measured facts in words."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from mu_llama.audio.downmix import Downmix
from mu_llama.audio.facts import Facts, measure_facts
from mu_llama.audio.read import warn_of_cancelling
from mu_llama.audio.source import AudioSource, display_name, repeatable, source_label
from mu_llama.audio.waveform import Waveform
from mu_llama.audio.windows import Window, WindowPlan, stream_windows
from mu_llama.encoders.cache import FeatureCache, content_hash, feature_key
from mu_llama.encoders.pooling import TrackFeatures, Weighting, encode_track
from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import AudioError, MuLlamaError
from mu_llama.text.fact_prompts import MeasuredFact

Audio = AudioSource | Waveform

# Peaks below this count as silence: -80 dBFS, a little above the noise of 16-bit dither.
SILENCE_PEAK = 1e-4


def audio_name(audio: Audio) -> str:
    """Name a source for answers and messages."""
    if isinstance(audio, (str, os.PathLike)):
        return os.fsdecode(audio)
    if isinstance(audio, Waveform):
        return "waveform"
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return "bytes"
    name = getattr(audio, "name", None)  # the number of a file that has none
    return name if isinstance(name, str) and name else "file object"


class FeatureExtractor:
    """Hears tracks with one encoder and one window plan, each only once.

    Args:
        make_encoder: builds the encoder; called when its fingerprint or its ears are first needed.
        plan: which seconds are heard.
        cache: where features are kept; None keeps nothing.
        keep_encoder: False drops the encoder after each track, to need less memory, and builds it again for the next.
    """

    def __init__(
        self,
        make_encoder: Callable[[], Encoder],
        *,
        plan: WindowPlan,
        cache: FeatureCache | None,
        keep_encoder: bool = True,
    ) -> None:
        self._make_encoder = make_encoder
        self.plan = plan
        self.cache = cache
        self.keep_encoder = keep_encoder

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, built on first use."""
        return self._make_encoder()

    @cached_property
    def _identity(self) -> tuple[str, str]:
        """Name and fingerprint of the encoder, known also after it is dropped."""
        return self.encoder.name, self.encoder.fingerprint

    def hear(
        self, audio: Audio, *, name: str | None = None, offset_s: float = 0.0, duration_s: float | None = None
    ) -> TrackFeatures:
        """Compute or look up the features of one track.

        Args:
            audio: path, bytes, open binary file or waveform. An open file is left where it stood.
            name: what to call it in messages; None for its own name.
            offset_s: where listening starts.
            duration_s: how much is listened to; None is up to the end.

        Returns:
            Features (L, D) and the seconds they were made of.

        Raises:
            AudioError: if the source can't be read, holds nothing or is silent.
        """
        try:
            return self._hear(repeatable(audio), audio_name(audio) if name is None else name, offset_s, duration_s)
        finally:
            if not self.keep_encoder:
                self.__dict__.pop("encoder", None)

    def _hear(self, audio: Audio, name: str, offset_s: float, duration_s: float | None) -> TrackFeatures:
        if self.cache is None:
            return self._encode(audio, name, offset_s, duration_s)
        encoder_name, fingerprint = self._identity
        key = feature_key(
            encoder_name=encoder_name,
            encoder_fingerprint=fingerprint,
            content=content_hash(audio),
            window_plan=self.plan.key,
            offset_s=offset_s,
            duration_s=duration_s,
        )
        return self.cache.get_or_compute(key, lambda: self._encode(audio, name, offset_s, duration_s))

    def _encode(self, audio: Audio, name: str, offset_s: float, duration_s: float | None) -> TrackFeatures:
        mix = Downmix()
        weighting: Weighting = "equal" if self.plan.name == "published" else "duration"

        def encode() -> TrackFeatures:
            rate_hz = self.encoder.rate_hz
            windows = stream_windows(
                audio, plan=self.plan, rate_hz=rate_hz, offset_s=offset_s, duration_s=duration_s, mix=mix
            )
            return encode_track(self.encoder, _refuse_silence(windows, name, mix), weighting=weighting)

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


def _refuse_silence(windows: Iterator[Window], name: str, mix: Downmix) -> Iterator[Window]:
    """Pass windows on, and fail at the end if none of them held a sound, unless another mix does."""
    loudest = 0.0
    for window in windows:
        loudest = max(loudest, float(np.abs(window.waveform.samples).max()))
        yield window
    if loudest < SILENCE_PEAK and not mix.cancels:
        raise AudioError(
            f"{display_name(name)}: silent (peak below -80 dBFS); expected something to hear: check the recording"
        )


logger = logging.getLogger(__name__)


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


def measure_in_words(
    audio: AudioSource | Waveform, *, offset_s: float, duration_s: float | None
) -> dict[str, MeasuredFact]:
    """Measure a track for a prompt; where it can't be done, say why in the log and give nothing."""
    try:
        return in_words(measure_facts(audio, offset_s=offset_s, duration_s=duration_s))
    except (MuLlamaError, OSError, ValueError) as error:
        logger.warning("tempo and key are not measured: %s", error)
        return {}
