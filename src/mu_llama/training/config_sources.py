"""Settings of a training run: the weights it starts from and the data it learns from; the types of all settings."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeFloat, PositiveFloat

from mu_llama.encoders import ENCODERS
from mu_llama.text.prompts import TEMPLATES
from mu_llama.training.config_checks import Settings, problem, shown

Augmentation = Literal["level", "equaliser", "noise", "phone"]
DataFormat = Literal["auto", "musicqa", "alpaca", "jsonl", "parquet"]


def one_of(names: Collection[str]) -> AfterValidator:
    """Accept only these names, such as the keys of a registry."""

    def check(name: str) -> str:
        if name not in names:
            raise problem(f"is {shown(name)}; expected one of {', '.join(names)}")
        return name

    return AfterValidator(check)


def _as_path(value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value):
        raise problem(f"is {shown(value)}; expected a path")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise problem(f"is {shown(value)}; expected a path, but its user has no home folder: write it out") from None


def _known_encoder(spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("kind") not in list(ENCODERS):
        raise problem(f"has kind {shown(spec.get('kind'))}; expected one of {', '.join(ENCODERS)}")
    return spec


AnyT = TypeVar("AnyT")
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
FilePath = Annotated[Path, BeforeValidator(_as_path)]
Listed = Annotated[AnyT, BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
"""A tuple, which YAML and JSON write as a list."""


class NewAdapter(Settings):
    """An adapter to be made new, with the sizes of the published one by default."""

    template: Annotated[str, one_of(TEMPLATES)] = "alpaca-published"
    """Name of the prompt template, a key of `prompts.TEMPLATES`."""
    num_conditioned_layers: Count = 20
    """Q: the last so many layers of the LLaMA hear the audio."""
    bridge_width: Count | None = None
    """Inner width of the bridge blocks; None is four times the width of the LLaMA."""
    num_blocks: Count = 3
    """How many bridge blocks."""
    input_scaling: Literal["none", "standardise"] = "none"
    """`standardise`: features lose the mean of the training tracks and are divided by their deviation, and gates
    start at 0.1; `none` starts as published, with gates at 0."""


class ModelSource(Settings):
    """Which weights a run starts from: `base` or `fresh`."""

    base: str | None = None
    """`mini`, a model folder, a published checkpoint.pth or a hub id, to go on from."""
    fresh: NewAdapter | None = None
    """A new adapter instead, between `encoder` and `llama`."""
    llama: str | None = None
    """LLaMA folder (Meta, Hugging Face or GGUF), hub id or packaged name; beside `base`, only for a published
    checkpoint."""
    encoder: Annotated[dict[str, Any], AfterValidator(_known_encoder)] | None = None
    """What `encoders.build_encoder` takes, e.g. `{kind: musicnn}`; beside `base`, only for a published checkpoint."""
    lora_rank: Count = 16
    """Rank of the LoRA (scale 1) that a phase with LoRA makes where `base` has none."""


class DatasetEntry(Settings):
    """One file of examples."""

    path: Annotated[FilePath, Field(examples=["music.jsonl"])]
    """Data file; like every path here, relative to the working directory."""
    format: DataFormat = "auto"
    """How the file is written; `auto` looks into it."""
    audio_folder: FilePath | None = None
    """Where its audio names start; None is the file's own folder, or `audios` in it for musicqa if that exists."""
    share: PositiveFloat | None = None
    """Weight among the data sets of a run (0.3 and 0.1 mix as 3 to 1); None throughout: each example once an epoch."""


class DataConfig(Settings):
    """What is learned from."""

    train: Listed[tuple[DatasetEntry, ...]] = ()
    """Data sets to train on; at least one."""
    validation: Listed[tuple[DatasetEntry, ...]] = ()
    """Data sets to measure the validation loss on."""
    validation_fraction: Fraction | None = None
    """Instead: this share of the training tracks is held out, with all their questions."""
    max_tokens: Annotated[int, Field(ge=8)] = 512
    """Longest row in tokens, prompt and answer; longer rows are cut, counted and reported."""
    skip_missing: bool = False
    """Drop and count examples whose audio is missing or can't be heard, instead of stopping before training."""
    encode: Literal["once", "live"] = "once"
    """`once`: each track is heard before training and its features kept; `live`: heard again each time it is drawn."""
    augment: Listed[tuple[Augmentation, ...]] = ()
    """Changes to the sound of training tracks, each half the time; with `encode: live`."""
    feature_noise: NonNegativeFloat = 0.0
    """Up to so many standard deviations of noise on a training track's features, by another amount each time."""
    feature_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Up to this share of a training track's features replaced by the mean of all tracks, each time others."""
    window: Literal["auto", "full", "published"] = "auto"
    """Seconds heard of a track: all, the first minute as published, or (auto) the model's own; `full` for a new one."""
