"""From settings to what a run starts with: weights, features, examples."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mu_llama import __version__
from mu_llama.audio.augment import chain
from mu_llama.audio.windows import PLANS
from mu_llama.checkpoints.choose import OPTIONS
from mu_llama.checkpoints.embedded import PACKAGED, provide_llama
from mu_llama.checkpoints.formats.encoder import make_encoder
from mu_llama.checkpoints.formats.format import Role
from mu_llama.checkpoints.load import find_parts, read_llama
from mu_llama.checkpoints.lora import refuse_graph
from mu_llama.checkpoints.spec import EncoderSpec, LlamaSpec, ModelSpec
from mu_llama.encoders import build_encoder
from mu_llama.encoders.cache import FeatureCache
from mu_llama.errors import CheckpointError, ConfigError, ModelNotFoundError
from mu_llama.model.config import AdapterConfig
from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.text.prompts import template_by_name
from mu_llama.training.collate import TokenizedExamples
from mu_llama.training.config import NewAdapter, TrainConfig
from mu_llama.training.dataset import Dataset, hold_out, read_datasets
from mu_llama.training.example import Example
from mu_llama.training.features import AugmentedFeatures, Features, FeatureTable, LiveFeatures, precompute_features
from mu_llama.training.initialization import fresh_adapter

_BRIDGE_FACTOR = 4
_PACKAGES = ("torch", "transformers", "accelerate", "peft")


@dataclass(frozen=True)
class TrainingData:
    """Examples and their features."""

    datasets: tuple[Dataset, ...]
    """To train on."""
    validation: tuple[Example, ...]
    """To measure the validation loss on; may be empty."""
    features: FeatureTable
    """Of all of them."""
    hashes: Mapping[Path, str]
    """SHA-256 of every data file."""
    num_missing: int = 0
    """How many examples were left out, because their audio is missing."""
    augmented: Features | None = None
    """What training takes instead of the table: live or augmented features; validation takes the table."""

    @property
    def train(self) -> list[Example]:
        """All examples to train on, in the order of their files."""
        return self.features.usable(example for dataset in self.datasets for example in dataset.examples)


def read_data(
    config: TrainConfig, parts: ModelSpec | None, *, home: Path, progress: ProgressCallback = no_progress
) -> TrainingData:
    """Read data sets and encode every track once.

    Args:
        config: of the run.
        parts: of the model to go on from; None for a fresh adapter, whose encoder the config names.
        home: cache folder, which holds the feature cache.
        progress: follows the encoding.

    Raises:
        DataError: listing bad rows, missing audio and tracks that can't be encoded.
    """
    data = config.data
    datasets = read_datasets(data.train, skip_missing=data.skip_missing)
    validation: tuple[Example, ...] = ()
    validation_sets: tuple[Dataset, ...] = ()
    if data.validation:
        validation_sets = read_datasets(data.validation, skip_missing=data.skip_missing)
        validation = tuple(example for dataset in validation_sets for example in dataset.examples)
    elif data.validation_fraction:
        datasets, validation = hold_out(datasets, fraction=data.validation_fraction, seed=config.run.seed)
    window = data.window if data.window != "auto" else (parts.window if parts is not None else "full")
    encoder = cache(_encoder_builder(config, parts))
    features = precompute_features(
        [*(example for dataset in datasets for example in dataset.examples), *validation],
        make_encoder=encoder,
        plan=PLANS[window],
        cache=FeatureCache(home / "features"),
        skip_unreadable=data.skip_missing,
        progress=progress,
    )
    augmented: Features | None = None
    if data.encode == "live":
        augmented = LiveFeatures(encoder(), plan=PLANS[window], augment=chain(data.augment))
    if data.feature_noise or data.feature_dropout:
        statistics = features.statistics([example for dataset in datasets for example in dataset.examples])
        augmented = AugmentedFeatures(
            augmented or features, statistics, noise=data.feature_noise, dropout=data.feature_dropout
        )
    hashes = {dataset.entry.path: dataset.sha256 for dataset in (*datasets, *validation_sets)}
    num_missing = sum(dataset.num_missing for dataset in (*datasets, *validation_sets))
    return TrainingData(datasets, tuple(features.usable(validation)), features, hashes, num_missing, augmented)


@dataclass(frozen=True)
class PreparedTracks:
    """What `mu-llama train --prepare` encoded, and what it left out."""

    tracks: int
    """Tracks whose features are in the cache."""
    missing_examples: int
    """Examples that were left out, because their audio is missing."""
    unreadable_tracks: int
    """Tracks that were left out, because they can't be encoded."""

    @classmethod
    def of(cls, data: TrainingData) -> PreparedTracks:
        """Count those of a run's data."""
        num_tracks = sum(audio is not None for audio in data.features.rows)
        return cls(num_tracks, data.num_missing, len(data.features.errors))

    def __str__(self) -> str:
        ready = "1 track is ready" if self.tracks == 1 else f"{self.tracks} tracks are ready"
        counts = (
            (self.missing_examples, "example", "whose audio file is missing"),
            (self.unreadable_tracks, "track", "that can't be encoded"),
        )
        left_out = [f"{count} {what}{'s' * (count != 1)} {why}" for count, what, why in counts if count]
        return f"{ready}; left out: {', '.join(left_out)}" if left_out else ready


def _encoder_builder(config: TrainConfig, parts: ModelSpec | None) -> Callable[[], Any]:
    if parts is not None:
        make: Callable[[], Any] = partial(make_encoder, parts, device="cpu")
    else:
        make = partial(build_encoder, dict(config.model.encoder or {}))

    def build() -> Any:
        with with_setting_names():
            return make()

    return build


def base_parts(config: TrainConfig, *, home: Path, report: Callable[[str], None]) -> ModelSpec | None:
    """Find the model a run goes on from; None if it starts with a fresh adapter."""
    source = config.model
    if source.base is None:
        return None
    encoder = None if source.encoder is None else str(source.encoder["path"])
    with with_setting_names():
        parts = find_parts(source.base, llama=source.llama, encoder=encoder, home=home, report=report)
        refuse_graph(parts.llama)
    return parts


def find_llama(config: TrainConfig, *, home: Path, report: Callable[[str], None]) -> LlamaSpec:
    """Find the LLaMA that a new adapter is made for.

    Raises:
        ConfigError: if it has fewer layers than are to be conditioned.
        ModelNotFoundError: if it doesn't exist.
    """
    name = str(config.model.llama)
    with with_setting_names():
        llama = read_llama(provide_llama(PACKAGED[name], home, report=report) if name in PACKAGED else name)
    wanted = (config.model.fresh or NewAdapter()).num_conditioned_layers
    if wanted > llama.config.num_hidden_layers:
        raise ConfigError(
            f"model.fresh.num_conditioned_layers is {wanted}; {llama.source} has {llama.config.num_hidden_layers}"
        )
    return llama


def fresh_parts(config: TrainConfig, data: TrainingData, llama: LlamaSpec) -> ModelSpec:
    """Describe a model with a new adapter between an encoder and a LLaMA."""
    fresh, source = config.model.fresh or NewAdapter(), config.model
    _, num_encoder_layers, encoder_width = data.features.values.shape
    sizes = AdapterConfig(
        num_encoder_layers=num_encoder_layers,
        encoder_width=encoder_width,
        hidden_size=llama.config.hidden_size,
        num_conditioned_layers=fresh.num_conditioned_layers,
        num_heads=llama.config.num_attention_heads,
        bridge_width=fresh.bridge_width or _BRIDGE_FACTOR * llama.config.hidden_size,
        num_blocks=fresh.num_blocks,
        input_scaling=fresh.input_scaling,
    )
    statistics = data.features.statistics(data.train) if fresh.input_scaling == "standardise" else None
    window = "full" if config.data.window == "auto" else config.data.window
    return ModelSpec(
        name=config.name,
        llama=llama,
        tuning={},
        adapter_config=sizes,
        adapter=fresh_adapter(sizes, seed=config.run.seed, statistics=statistics),
        template=template_by_name(fresh.template),
        encoder=EncoderSpec(dict(source.encoder or {})),
        source=config.name,
        window=window,
    )


def renamed(parts: ModelSpec, config: TrainConfig) -> ModelSpec:
    """Give a model the name of the run that trains it."""
    return dataclasses.replace(parts, name=config.name)


SETTINGS: Mapping[Role, str] = MappingProxyType(
    {"model": "model.base", "llama": "model.llama", "encoder": "model.encoder"}
)
"""The setting that names the file of each role."""
_BY_OPTION = {OPTIONS[role]: setting for role, setting in SETTINGS.items()}
# Not inside a path such as models--llama.
_OPTION = re.compile(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, _BY_OPTION))})(?![\w/.-])")


@contextmanager
def with_setting_names() -> Iterator[None]:
    """Name settings where an error names options of the command line, which training doesn't have.

    Raises:
        CheckpointError, ConfigError, ModelNotFoundError: as they came, in other words.
    """
    try:
        yield
    except (CheckpointError, ConfigError, ModelNotFoundError) as error:
        text = _OPTION.sub(lambda match: _BY_OPTION[match[0]], str(error))
        if text == str(error):
            raise
        raise type(error)(text) from error


def run_record(
    data: TrainingData, rows: TokenizedExamples, validation: TokenizedExamples | None, *, num_processes: int
) -> dict[str, Any]:
    """Give what run.json and the model card record besides the settings: versions, data hashes and counts."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "versions": {"mu-llama": __version__, "python": platform.python_version(), **versions},
        "data": {str(path): sha256 for path, sha256 in data.hashes.items()},
        "counts": {
            "rows": len(rows.rows),
            "validation_rows": 0 if validation is None else len(validation.rows),
            "tracks": sum(audio is not None for audio in data.features.rows),
            "cut_at_max_tokens": rows.num_truncated,
            "validation_rows_cut": 0 if validation is None else validation.num_truncated,
            "left_out_without_answer": rows.num_empty,
            "missing_audio": sum(dataset.num_missing for dataset in data.datasets),
            "unreadable_audio": len(data.features.errors),
            "processes": num_processes,
        },
    }
