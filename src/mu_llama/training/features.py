"""The features of examples: from a table made before training, or encoded while it runs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from mu_llama.audio.augment import Augment
from mu_llama.audio.waveform import Waveform
from mu_llama.audio.windows import WindowPlan
from mu_llama.encoders.protocol import Encoder
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.training.example import DataError, Example
from mu_llama.training.initialization import FeatureStatistics, feature_statistics
from mu_llama.training.silence import encode_silence


class Features(Protocol):
    """Gives what an encoder hears of an example."""

    def of(self, example: Example, *, rng: random.Random | None = None) -> torch.Tensor:
        """Give the features of one example.

        Args:
            example: one that the source was made for.
            rng: what augmentation draws from; None hears the track as it is, as validation wants.

        Returns:
            Float32 (L, D).
        """
        ...


@dataclass(frozen=True)
class TrackError:
    """A track that can't be heard."""

    audio: Path
    """Its file."""
    reason: str
    """What is wrong, and what to do."""

    def __str__(self) -> str:
        return f"{self.audio}: {self.reason}"


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The features of every distinct track, made once; satisfies `Features`, and is never augmented."""

    values: torch.Tensor
    """Float32 (N, L, D)."""
    rows: Mapping[Path | None, int]
    """Audio file to its row; None is that of the text-only examples."""
    errors: tuple[TrackError, ...] = field(default=())
    """Tracks that are not in it, because they can't be heard."""

    def of(self, example: Example, *, rng: random.Random | None = None) -> torch.Tensor:
        """Look the features (L, D) of an example up; a view, not to be changed.

        Raises:
            DataError: if its track isn't in the table.
        """
        try:
            return self.values[self.rows[example.audio]]
        except KeyError:
            raise DataError(f"example {example.id}: {example.audio} has no features; prepare it first") from None

    def usable(self, examples: Iterable[Example]) -> list[Example]:
        """Keep the examples whose track is in the table."""
        return [example for example in examples if example.audio in self.rows]

    def statistics(self, examples: Sequence[Example]) -> FeatureStatistics:
        """Measure how features are distributed over the distinct tracks of some examples, text-only ones left out.

        Args:
            examples: those to train on.

        Raises:
            ConfigError: if they have fewer than two tracks.
        """
        tracks = dict.fromkeys(example.audio for example in examples if example.audio in self.rows)
        return feature_statistics(self.values[self.rows[audio]] for audio in tracks if audio is not None)


class LiveFeatures:
    """Encodes an example each time it is asked for; satisfies `Features`.

    For augmented sound and encoders that change; everything else is faster with a `FeatureTable`.

    Args:
        encoder: gives (L, D) per window.
        plan: which seconds are heard.
        augment: changes each window before it is encoded, where a source of randomness is given.
    """

    def __init__(self, encoder: Encoder, *, plan: WindowPlan, augment: Augment | None = None) -> None:
        self._encoder = encoder
        self._plan = plan
        self._augment = augment

    def of(self, example: Example, *, rng: random.Random | None = None) -> torch.Tensor:
        """Encode the track of an example to (L, D); text-only ones are silence, which is not augmented.

        Raises:
            AudioError: if the track can't be heard.
        """
        if example.audio is None:
            return encode_silence(self._encoder)
        encoder = self._encoder
        if self._augment is not None and rng is not None:
            encoder = _Augmented(encoder, self._augment, rng)
        return FeatureExtractor(lambda: encoder, plan=self._plan, cache=None).extract(example.audio).values


class _Augmented:
    """An encoder that hears changed sound."""

    def __init__(self, encoder: Encoder, augment: Augment, rng: random.Random) -> None:
        self.name, self.fingerprint, self.rate_hz = encoder.name, encoder.fingerprint, encoder.rate_hz
        self.num_layers, self.width = encoder.num_layers, encoder.width
        self._encoder, self._augment, self._rng = encoder, augment, rng

    def encode(self, window: Waveform) -> torch.Tensor:
        return self._encoder.encode(self._augment(window, self._rng))
