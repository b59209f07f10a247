"""Every setting of a training run, with its one default and what it does."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    model_validator,
)

from mu_llama.encoders import ENCODERS
from mu_llama.text.prompts import TEMPLATES
from mu_llama.training.config_checks import find_conflicts
from mu_llama.training.config_types import (
    Count,
    FilePath,
    Fraction,
    Listed,
    Settings,
    one_of,
    problem,
    refuse,
    shown,
)
from mu_llama.training.phases import PHASES
from mu_llama.training.readers import FORMATS

Augmentation = Literal["level", "equaliser", "noise", "phone"]


def _known_encoder(spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("kind") not in list(ENCODERS):
        raise problem(f"has kind {shown(spec.get('kind'))}; expected one of {', '.join(ENCODERS)}")
    return spec


class NewAdapter(Settings):
    """An adapter to be made new, with the sizes of the published one by default."""

    template: Annotated[str, one_of(TEMPLATES)] = "alpaca-published"
    """Name of the prompt template, a key of `prompts.TEMPLATES`."""
    num_conditioned_layers: Count = 20
    """Q: how many of the last layers of the LLaMA are conditioned on the audio."""
    bridge_width: Count | None = None
    """Inner width of the bridge blocks; None is four times the width of the LLaMA."""
    num_blocks: Count = 3
    """How many bridge blocks."""
    input_scaling: Literal["none", "standardise"] = "none"
    """`standardise`: features lose the mean of the training tracks and are divided by their standard deviation, and
    gates start at 0.1; `none` starts as published, with gates at 0."""


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
    format: Annotated[str, one_of(FORMATS, "auto")] = "auto"
    """Name of the file's format, a key of `readers.FORMATS` (musicqa, alpaca, jsonl, parquet); `auto` recognises it."""
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
    """Drop and count examples whose audio is missing or can't be decoded, instead of stopping before training."""
    encode: Literal["once", "live"] = "once"
    """`once`: tracks are encoded before training and their features cached; `live`: each time one is drawn."""
    augment: Listed[tuple[Augmentation, ...]] = ()
    """Changes to the sound of training tracks, each half the time; with `encode: live`."""
    feature_noise: NonNegativeFloat = 0.0
    """Up to so many standard deviations of noise on a training track's features, by another amount each time."""
    feature_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Up to this share of a training track's features replaced by the mean of all tracks, each time others."""
    window: Literal["auto", "full", "published"] = "auto"
    """Seconds of a track that are encoded: all, the first minute as published, or (auto) the model's own, which is
    `full` for a new one."""


Decay = Annotated[float, Field(ge=0, lt=1)]
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "aim"]


class OptimizerConfig(Settings):
    """AdamW; 1-d tensors don't decay. Every trained part needs a learning rate: `base_lr`, `lr` or its own."""

    base_lr: PositiveFloat | None = None
    """Peak learning rate at 256 rows an update; scaled to rows = size x accumulate x processes."""
    lr: PositiveFloat | None = None
    """Peak learning rate itself."""
    adapter_lr: PositiveFloat | None = None
    """Peak for adapter and conditioner, instead of the common one."""
    lora_lr: PositiveFloat | None = None
    """Peak for what is trained inside the LLaMA, instead of the common one."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled weight decay."""
    betas: Listed[tuple[Decay, Decay]] = (0.9, 0.95)
    """Decay of the two moments."""
    clip_norm: PositiveFloat | None = None
    """Gradients are scaled down to this total norm; None only reports it, as published."""


class ScheduleConfig(Settings):
    """Linear warm-up, then half a cosine; the length is `epochs` or `steps`."""

    epochs: Count | None = None
    """Passes; with `split_epoch` each goes through one part of the data."""
    steps: Count | None = None
    """Updates."""
    warmup_epochs: NonNegativeFloat | None = None
    """Length of the warm-up in epochs; goes with `epochs`."""
    warmup_steps: NonNegativeInt | None = None
    """Length of the warm-up in updates."""
    min_lr: NonNegativeFloat = 0.0
    """Where the cosine ends."""
    split_epoch: Count = 1
    """How many epochs one pass through all the data is cut into."""


class BatchConfig(Settings):
    """How rows come together."""

    size: Count = 1
    """Rows in a forward pass, on each process."""
    accumulate: Count = 1
    """Forward passes in an update."""
    bucketed: bool = True
    """Put rows of like length together; the published recipes don't, and with size 1 it changes nothing."""
    max_tokens: Count | None = None
    """Most tokens of a forward pass, padding included; then batches hold up to `size` rows."""


class PrecisionConfig(Settings):
    """Exactness against speed and memory."""

    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Of the forward pass; trained weights stay in float32."""
    nf4_base: bool = False
    """Keep the frozen LLaMA's linear layers in 4 bits (QLoRA); needs the extra `quantize`."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: about a third slower, far less memory."""
    compile: bool = False
    """Use torch.compile: slow to start, faster afterwards."""


class RunConfig(Settings):
    """What is written, and when."""

    out: FilePath | None = None
    """Run folder; None is `runs/<name>`."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Of everything that is drawn."""
    save_every_steps: Count = 500
    """Updates between two checkpoints."""
    keep_last: Count = 2
    """How many of the latest checkpoints stay."""
    keep_best: bool = True
    """Keep the checkpoint of the lowest validation loss as well, where there is validation data."""
    validate_every_steps: Count | None = None
    """Updates between two validations; None is once an epoch, or with each checkpoint where `steps` is given."""
    early_stop_patience: Count | None = None
    """Stop after so many validations without a lower loss."""
    sample_every_steps: Count | None = None
    """Updates between two rounds of sample answers on fixed validation tracks; None writes none."""
    sample_questions: Listed[tuple[str, ...]] = ("Describe the audio",)
    """What is asked of those tracks."""
    num_sample_tracks: Count = 2
    """How many such tracks."""
    trackers: Listed[tuple[Tracker, ...]] = ()
    """Where metrics go besides metrics.jsonl."""


class TrainConfig(Settings):
    """A whole training run.

    Raises:
        ConfigError: with one line for each value of a wrong type, out of range, or against another.

    Example:
        >>> from mu_llama.training.config import DatasetEntry
        >>> data = DataConfig(train=[DatasetEntry(path="music.json")])
        >>> run = TrainConfig(name="mine", phase="joint", model=ModelSource(base="mini"), data=data,
        ...                   optimiser=OptimizerConfig(lr=1e-4), schedule=ScheduleConfig(epochs=3))
        >>> run.batch.size
        1
    """

    name: Annotated[str, Field(min_length=1, examples=["mine"])]
    """What the run and its model are called."""
    phase: Annotated[str, one_of(PHASES), Field(examples=["joint"])]
    """What is trained, a key of `phases.PHASES`: the adapter (pretrain), what tunes the LLaMA (finetune), adapter and
    LoRA (joint), or LoRA alone (lora)."""
    model: ModelSource = ModelSource()
    """Where weights come from."""
    data: DataConfig = DataConfig()
    """What is learned from."""
    optimiser: OptimizerConfig = OptimizerConfig()
    """How a gradient becomes an update."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How long, and the learning rate on the way."""
    batch: BatchConfig = BatchConfig()
    """How rows come together."""
    precision: PrecisionConfig = PrecisionConfig()
    """Exactness against speed and memory."""
    run: RunConfig = RunConfig()
    """What is written, and when."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(find_conflicts(self))
        return self
