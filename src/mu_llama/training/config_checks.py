"""Conflicts between settings of a training run that are each valid alone."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

from mu_llama.training.config_types import Problem, shown
from mu_llama.training.phases import PHASES

if TYPE_CHECKING:  # it imports this module
    from mu_llama.training.config import TrainConfig


def find_conflicts(config: TrainConfig) -> Iterator[Problem]:
    """Give every conflict between settings that are each valid alone."""
    for check in (_check_choices, _check_schedule, _check_learning_rates, _check_model, _check_data, _check_run):
        yield from check(config)


# Settings of which only one may be given; of some, one must be.
_CHOICES = {
    ("schedule.epochs", "schedule.steps"): True,
    ("schedule.warmup_epochs", "schedule.warmup_steps"): False,
    ("optimiser.lr", "optimiser.base_lr"): False,
    ("model.base", "model.fresh"): True,
    ("data.validation", "data.validation_fraction"): False,
}


def _check_choices(config: TrainConfig) -> Iterator[Problem]:
    for (one, other), is_needed in _CHOICES.items():
        first, second = (attrgetter(name)(config) for name in (one, other))
        if is_needed and first is None and second is None:
            yield Problem(one, f"and {other} are both missing; give one of them", (other,))
        if first not in (None, ()) and second is not None:
            came = [shown(value) if isinstance(value, (str, int, float)) else "given" for value in (first, second)]
            text = f"is {came[0]} and {other} is {came[1]}; expected one of them: set the other to null"
            yield Problem(one, text, (other,))


def _check_schedule(config: TrainConfig) -> Iterator[Problem]:
    for unit in ("epochs", "steps"):
        warmup, length = getattr(config.schedule, f"warmup_{unit}"), getattr(config.schedule, unit)
        path, other = f"schedule.warmup_{unit}", f"schedule.{unit}"
        if warmup is not None and length is not None and warmup >= length:
            yield Problem(path, f"is {warmup:g}; expected less than {other}, which is {length}", (other,))
        if warmup is not None and length is None and unit == "epochs":
            text = f"is {warmup:g}, but the length is not in epochs; give schedule.warmup_steps instead"
            yield Problem(path, text, (other,))


def _check_learning_rates(config: TrainConfig) -> Iterator[Problem]:
    phase, optimizer, min_lr = PHASES[config.phase], config.optimiser, config.schedule.min_lr
    common = ("optimiser.lr", "optimiser.base_lr")
    has_common = optimizer.lr is not None or optimizer.base_lr is not None
    parts = (
        ("optimiser.adapter_lr", optimizer.adapter_lr, phase.trains_adapter, "no adapter"),
        ("optimiser.lora_lr", optimizer.lora_lr, phase.trains_llama, "nothing inside the LLaMA"),
    )
    for path, lr, is_trained, nothing in parts:
        if lr is not None and not is_trained:
            yield Problem(path, f"is {lr:g}, but phase {phase.name} trains {nothing}; leave it out", ("phase",))
        if lr is None and is_trained and not has_common:
            text = f"is missing, and so are {' and '.join(common)}; phase {phase.name} needs one of them"
            yield Problem(path, text, ("phase", *common))
    peaks = [lr for lr in (optimizer.lr, optimizer.adapter_lr, optimizer.lora_lr) if lr is not None]
    if peaks and min_lr > min(peaks):
        text = f"is {min_lr:g}; expected at most the peak rate, {min(peaks):g}"
        yield Problem("schedule.min_lr", text, ("optimiser.lr", *(path for path, *_ in parts)))


def _check_model(config: TrainConfig) -> Iterator[Problem]:
    model = config.model
    if model.fresh is not None:
        parts = {"model.llama": model.llama, "model.encoder": model.encoder}
        missing = [name for name, part in parts.items() if part is None]
        if missing:
            text = f"is an adapter between an encoder and a LLaMA; give {' and '.join(missing)}"
            yield Problem("model.fresh", text, tuple(parts))
        if not PHASES[config.phase].trains_adapter:
            phases = " or ".join(phase.name for phase in PHASES.values() if phase.trains_adapter)
            text = f"would stay untrained in phase {config.phase}; give model.base, or take phase {phases}"
            yield Problem("model.fresh", text, ("phase",))
    if model.encoder is not None and model.base is not None and not model.encoder.get("path"):
        text = "is given beside model.base without a path; give {kind: mert, path: ...}, or leave it out"
        yield Problem("model.encoder", text, ("model.base",))


def _check_data(config: TrainConfig) -> Iterator[Problem]:
    data, max_tokens = config.data, config.batch.max_tokens
    num_shares, num_entries = sum(entry.share is not None for entry in data.train), len(data.train)
    if not data.train:
        yield Problem("data.train", "is empty; expected at least one data set")
    if 0 < num_shares < num_entries:
        text = f"has a share in {num_shares} of {num_entries} entries; give it in all of them or in none"
        yield Problem("data.train", text)
    if any(entry.share is not None for entry in data.validation):
        text = "has an entry with a share, but each validation example counts once; leave it out"
        yield Problem("data.validation", text)
    if data.augment and data.encode == "once":
        text = "changes nothing where features are made once; set data.encode to live, or leave it out"
        yield Problem("data.augment", text, ("data.encode",))
    if max_tokens is not None and max_tokens < data.max_tokens:
        longest = f"data.max_tokens, which is {data.max_tokens}"
        text = f"is {max_tokens}; expected at least {longest}, so that every row fits in a batch"
        yield Problem("batch.max_tokens", text, ("data.max_tokens",))
    if max_tokens is not None and (not config.batch.bucketed or config.schedule.split_epoch > 1 or num_shares):
        text = "fills batches by length only with batch.bucketed, split_epoch 1 and no shares; leave it out"
        yield Problem("batch.max_tokens", text, ("batch.bucketed", "schedule.split_epoch", "data.train"))


def _check_run(config: TrainConfig) -> Iterator[Problem]:
    run, data = config.run, config.data
    for name in ("validate_every_steps", "early_stop_patience", "sample_every_steps"):
        value = getattr(run, name)
        if value is not None and not data.validation and data.validation_fraction is None:
            sources = ("data.validation", "data.validation_fraction")
            text = f"is {value}, but there is no validation data; give {' or '.join(sources)}"
            yield Problem(f"run.{name}", text, sources)
    if run.sample_every_steps is not None and not all(question.strip() for question in run.sample_questions or ("",)):
        text = "is empty or has an empty question; expected at least one to ask"
        yield Problem("run.sample_questions", text, ("run.sample_every_steps",))
