"""Every setting of a training run, with its one default and what it does; see also `config_sources`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mu_llama.errors import ConfigError
from mu_llama.training.config_rules import RULES
from mu_llama.training.config_sources import DataConfig, ModelSource
from mu_llama.training.config_values import Count, NotNegative, Range, Rate, RecordReader, to_plain

Phase = Literal["pretrain", "finetune", "joint", "lora"]
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "aim"]


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW; 1-d tensors don't decay. Every trained part needs a rate: by `base_lr`, `lr` or its own."""

    base_lr: Rate | None = None
    """Peak learning rate at 256 rows an update; scaled to rows = size x accumulate x processes."""
    lr: Rate | None = None
    """Peak learning rate itself."""
    adapter_lr: Rate | None = None
    """Peak for adapter and conditioner, instead of the common one."""
    lora_lr: Rate | None = None
    """Peak for what is trained inside the LLaMA, instead of the common one."""
    weight_decay: NotNegative = 0.05
    """Decoupled weight decay."""
    betas: tuple[Annotated[float, Range(0, 1, below=True)], Annotated[float, Range(0, 1, below=True)]] = (0.9, 0.95)
    """Decay of the two moments."""
    clip_norm: Rate | None = None
    """Gradients are scaled down to this total norm; None only reports it, as published."""


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up, then half a cosine; the length is `epochs` or `steps`."""

    epochs: Count | None = None
    """Passes; with `split_epoch` each goes through one part of the data."""
    steps: Count | None = None
    """Updates."""
    warmup_epochs: NotNegative | None = None
    """Length of the warm-up in epochs; goes with `epochs`."""
    warmup_steps: Annotated[int, Range(0)] | None = None
    """Length of the warm-up in updates."""
    min_lr: NotNegative = 0.0
    """Where the cosine ends."""
    split_epoch: Count = 1
    """How many epochs one pass through all the data is cut into."""


@dataclass(frozen=True)
class BatchConfig:
    """How rows come together."""

    size: Count = 1
    """Rows in a forward pass, on each process."""
    accumulate: Count = 1
    """Forward passes in an update."""
    bucketed: bool = True
    """Put rows of like length together; the published recipes don't, and with size 1 it changes nothing."""
    max_tokens: Count | None = None
    """Most tokens of a forward pass, padding included; then batches hold up to `size` rows."""


@dataclass(frozen=True)
class PrecisionConfig:
    """Exactness against speed and memory."""

    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Of the forward pass; trained weights stay in float32."""
    nf4_base: bool = False
    """Keep the frozen LLaMA's linear layers in 4 bits (QLoRA); needs the extra `quantize`."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: about a third slower, far less memory."""
    compile: bool = False
    """Use torch.compile: slow to start, faster afterwards."""


@dataclass(frozen=True)
class RunConfig:
    """What is written, and when."""

    out: Path | None = None
    """Run folder; None is `runs/<name>`."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
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
    sample_questions: tuple[str, ...] = ("Describe the audio",)
    """What is asked of those tracks."""
    num_sample_tracks: Count = 2
    """How many such tracks."""
    trackers: tuple[Tracker, ...] = ()
    """Where metrics go besides metrics.jsonl."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run.

    Raises:
        ConfigError: with one line for each value of a wrong type, out of range, or against another.

    Example:
        >>> from mu_llama.training.config_sources import DatasetEntry
        >>> data = DataConfig(train=(DatasetEntry(Path("music.json")),))
        >>> run = TrainConfig("mine", phase="joint", model=ModelSource(base="mini"), data=data,
        ...                   optimiser=OptimiserConfig(lr=1e-4), schedule=ScheduleConfig(epochs=3))
        >>> run.batch.size
        1
    """

    name: Annotated[str, Range(1)]
    """What the run and its model are called."""
    phase: Phase
    """What is trained: the adapter, what tunes the LLaMA, (joint) adapter and LoRA, or (lora) LoRA alone."""
    model: ModelSource
    """Where weights come from."""
    data: DataConfig
    """What is learned from."""
    optimiser: OptimiserConfig
    """How a gradient becomes an update."""
    schedule: ScheduleConfig
    """How long, and the learning rate on the way."""
    batch: BatchConfig = BatchConfig()
    """How rows come together."""
    precision: PrecisionConfig = PrecisionConfig()
    """Exactness against speed and memory."""
    run: RunConfig = RunConfig()
    """What is written, and when."""

    def __post_init__(self) -> None:
        reader = RecordReader(TrainConfig)
        values = reader.read(to_plain(self))
        problems = reader.problems + RULES.broken(values, doubtful=reader.doubtful)
        if problems:
            raise ConfigError("the training settings don't fit:\n" + "\n".join(map(str, problems)))
