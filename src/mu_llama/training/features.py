"""The features of examples: from a table made before training or encoded while it runs, plain or augmented."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from mu_llama.audio.augment import Augment
from mu_llama.audio.waveform import Waveform
from mu_llama.audio.windows import WindowPlan
from mu_llama.encoders.cache import FeatureCache, content_hash, feature_key
from mu_llama.encoders.pooling import TrackFeatures
from mu_llama.encoders.protocol import Encoder
from mu_llama.errors import MuLlamaError
from mu_llama.files import size_bytes_of
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.training.example import DataError, Example, listing
from mu_llama.training.initialization import FeatureStatistics, feature_statistics


def encode_silence(encoder: Encoder, cache: FeatureCache | None = None) -> torch.Tensor:
    """Encode a second of zeros at the encoder's rate, as the published training does for text-only examples.

    Args:
        encoder: of the run.
        cache: where the result is looked up and stored.

    Returns:
        Float32 (L, D).
    """
    silence = Waveform(np.zeros(encoder.rate_hz, dtype=np.float32), encoder.rate_hz)

    def encode() -> TrackFeatures:
        return TrackFeatures(np.asarray(encoder.encode(silence), np.float32), spans=((0.0, 1.0),), duration_s=1.0)

    if cache is None:
        return torch.from_numpy(encode().values)
    # A window plan of its own: a track of one second of silence is refused, so it must not match this entry.
    key = feature_key(
        encoder_name=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        content=content_hash(silence),
        window_plan="text-only",
        offset_s=0.0,
        duration_s=None,
    )
    return torch.from_numpy(cache.get_or_compute(key, encode).values)


class Features(Protocol):
    """A source of the encoder's features of an example."""

    def of(self, example: Example, *, rng: random.Random | None = None) -> torch.Tensor:
        """Give the features of one example.

        Args:
            example: one that the source was made for.
            rng: what augmentation draws from; None for no augmentation, as in validation.

        Returns:
            Float32 (L, D).
        """
        ...


@dataclass(frozen=True)
class TrackError:
    """A track that can't be encoded."""

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
    """Tracks left out because they can't be encoded."""

    def of(self, example: Example, *, rng: random.Random | None = None) -> torch.Tensor:
        """Look up the features (L, D) of an example; a view, not to be changed.

        Raises:
            DataError: if its track isn't in the table.
        """
        try:
            return self.values[self.rows[example.audio]]
        except KeyError:
            raise DataError(f"example {example.id}: {example.audio} has no features; encode its track first") from None

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
    """Encodes the track of an example each time its features are asked for; satisfies `Features`.

    For augmented sound and encoders that change; everything else is faster with a `FeatureTable`.

    Args:
        encoder: gives (L, D) per window.
        plan: which seconds are encoded.
        augment: changes each window before it is encoded, where a source of randomness is given.
    """

    def __init__(self, encoder: Encoder, *, plan: WindowPlan, augment: Augment | None = None) -> None:
        self._encoder = encoder
        self._plan = plan
        self._augment = augment

    def of(self, example: Example, *, rng: random.Random | None = None) -> torch.Tensor:
        """Encode the track of an example to (L, D); text-only ones are silence, which is not augmented.

        Raises:
            AudioError: if the track can't be decoded.
        """
        if example.audio is None:
            return encode_silence(self._encoder)
        encoder = self._encoder
        if self._augment is not None and rng is not None:
            encoder = _Augmented(encoder, self._augment, rng)
        extractor = FeatureExtractor(lambda: encoder, plan=self._plan, cache=None)
        return torch.from_numpy(extractor.extract(example.audio).values)


class _Augmented:
    """An encoder that augments each window before it encodes it."""

    def __init__(self, encoder: Encoder, augment: Augment, rng: random.Random) -> None:
        self.name, self.fingerprint, self.rate_hz = encoder.name, encoder.fingerprint, encoder.rate_hz
        self.num_layers, self.width = encoder.num_layers, encoder.width
        self._encoder, self._augment, self._rng = encoder, augment, rng

    def encode(self, window: Waveform) -> npt.NDArray[np.float32]:
        return self._encoder.encode(self._augment(window, self._rng))


def augment_features(
    features: torch.Tensor,
    statistics: FeatureStatistics,
    *,
    noise: float,
    dropout: float,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Add noise to features, and put the mean of all tracks in the place of some.

    Args:
        features: (..., L, D).
        statistics: of the training tracks.
        noise: standard deviations of Gaussian noise.
        dropout: share of the numbers that are replaced, 0 to 1.
        generator: draws; None draws from torch's own.

    Example:
        >>> two = FeatureStatistics(mean=torch.zeros(1, 2), std=torch.ones(1, 2))
        >>> augment_features(torch.ones(1, 2), two, noise=0.0, dropout=1.0)
        tensor([[0., 0.]])
    """
    normal = torch.randn(features.shape, generator=generator)
    left_out = torch.rand(features.shape, generator=generator) < dropout
    return torch.where(left_out, statistics.mean, features + noise * statistics.std * normal)


class AugmentedFeatures:
    """Features of another source, augmented each time by another amount; satisfies `Features`.

    At inference another soundfont, room or codec shifts the features; an adapter trained on exact features alone
    relies on every detail of them.

    Args:
        features: the source.
        statistics: of the training tracks.
        noise: at most so many standard deviations of noise.
        dropout: at most this share of the numbers replaced by the mean.
    """

    def __init__(self, features: Features, statistics: FeatureStatistics, *, noise: float, dropout: float) -> None:
        self._features, self._statistics = features, statistics
        self._noise, self._dropout = noise, dropout

    def of(self, example: Example, *, rng: random.Random | None = None) -> torch.Tensor:
        """Give the features (L, D) of an example, augmented where a source of randomness is given."""
        features = self._features.of(example, rng=rng)
        if rng is None:
            return features
        amount, generator = rng.random(), torch.Generator().manual_seed(rng.getrandbits(63))
        return augment_features(
            features, self._statistics, noise=amount * self._noise, dropout=amount * self._dropout, generator=generator
        )


def precompute_features(
    examples: Iterable[Example],
    *,
    make_encoder: Callable[[], Encoder],
    plan: WindowPlan,
    cache: FeatureCache | None,
    skip_unreadable: bool = False,
    progress: ProgressCallback = no_progress,
) -> FeatureTable:
    """Encode every distinct track of some examples, through the feature cache.

    What is in the cache is not encoded again, so an interrupted call goes on where it stopped and a
    finished one only reads the files to recognise them. Text-only examples get the features of a second of zeros.

    Args:
        examples: those of training and validation together.
        make_encoder: builds the encoder; called once.
        plan: which seconds of a track are encoded.
        cache: keeps features by content; None keeps nothing.
        skip_unreadable: leave tracks that can't be encoded out of the table and list them in its `errors`.
        progress: counts the bytes of audio files.

    Returns:
        A table with a row for each track.

    Raises:
        DataError: after all tracks were tried, if some can't be encoded and `skip_unreadable` is not set (up to 20
            are listed), if none can, or if there are no examples.
    """
    wanted = dict.fromkeys(example.audio for example in examples)
    paths = [path for path in wanted if path is not None]
    if not wanted:
        raise DataError("there are no examples to encode; expected at least one")
    extractor = FeatureExtractor(make_encoder, plan=plan, cache=cache)
    rows: dict[Path | None, int] = {}
    values: list[torch.Tensor] = []
    errors: list[TrackError] = []
    if None in wanted:
        rows[None] = 0
        values.append(encode_silence(extractor.encoder, cache))
    sizes = [size_bytes_of(path) for path in paths]
    advance = progress("encoding tracks", sum(sizes))
    for path, size_bytes in zip(paths, sizes, strict=True):
        encoded = _encode_track(extractor, path)
        if isinstance(encoded, TrackError):
            errors.append(encoded)
        else:
            rows[path] = len(values)
            values.append(encoded)
        advance(size_bytes)
    if errors and (not skip_unreadable or len(errors) == len(paths)):
        advice = "replace them, or set data.skip_missing to drop their examples"
        raise DataError("\n".join(listing("tracks that can't be encoded", map(str, errors), advice)))
    return FeatureTable(torch.stack(values) if values else torch.empty(0), rows, tuple(errors))


def _encode_track(extractor: FeatureExtractor, path: Path) -> torch.Tensor | TrackError:
    try:
        values = extractor.extract(path).values
    except (MuLlamaError, OSError) as error:
        return TrackError(path, " ".join(str(error).split()))
    if not np.isfinite(values).all():
        return TrackError(path, "its features are not finite; build the encoder with dtype float32")
    return torch.from_numpy(values)
