"""Settings that are each right and contradict one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mu_llama.encoders import ENCODERS
from mu_llama.prompts import TEMPLATES
from mu_llama.training.rule_book import RuleBook

if TYPE_CHECKING:
    from mu_llama.training.config_sources import DatasetEntry, FreshAdapter

RULES = RuleBook()
"""What the settings of a `TrainConfig` must keep to together."""


@RULES.rule("schedule.epochs", "schedule.steps")
def _one_length(epochs: int | None, steps: int | None) -> str | None:
    if epochs is not None and steps is not None:
        return f"is {epochs} and schedule.steps is {steps}; expected one of them: set the other to null"
    return "and schedule.steps are both missing; give one of them" if epochs is None and steps is None else None


@RULES.rule("schedule.warmup_epochs", "schedule.warmup_steps")
def _one_warmup(epochs: float | None, steps: int | None) -> str | None:
    if epochs is not None and steps is not None:
        return f"is {epochs:g} and schedule.warmup_steps is {steps}; expected one of them: set the other to null"
    return None


@RULES.rule("schedule.warmup_epochs", "schedule.epochs")
def _warmup_epochs_end(warmup: float | None, epochs: int | None) -> str | None:
    if warmup is not None and epochs is None:
        return f"is {warmup:g}, but the length is not in epochs; give schedule.warmup_steps instead"
    if warmup is not None and epochs is not None and warmup >= epochs:
        return f"is {warmup:g}; expected less than schedule.epochs, which is {epochs}"
    return None


@RULES.rule("schedule.warmup_steps", "schedule.steps")
def _warmup_steps_end(warmup: int | None, steps: int | None) -> str | None:
    if warmup is not None and steps is not None and warmup >= steps:
        return f"is {warmup}; expected less than schedule.steps, which is {steps}"
    return None


@RULES.rule("optimiser.lr", "optimiser.base_lr")
def _one_rate(rate: float | None, base: float | None) -> str | None:
    if rate is not None and base is not None:
        return f"is {rate:g} and optimiser.base_lr is {base:g}; expected one of them: set the other to null"
    return None


_KEEP_ADAPTER = ("finetune", "lora")


@RULES.rule("optimiser.adapter_lr", "phase", "optimiser.lr", "optimiser.base_lr")
def _adapter_rate(own: float | None, phase: str, rate: float | None, base: float | None) -> str | None:
    if own is not None and phase in _KEEP_ADAPTER:
        return f"is {own:g}, but phase {phase} trains no adapter; leave it out"
    if own is None and rate is None and base is None and phase not in _KEEP_ADAPTER:
        return f"is missing, and so are optimiser.lr and optimiser.base_lr; phase {phase} needs one of them"
    return None


@RULES.rule("optimiser.lora_lr", "phase", "optimiser.lr", "optimiser.base_lr")
def _lora_rate(own: float | None, phase: str, rate: float | None, base: float | None) -> str | None:
    if own is not None and phase == "pretrain":
        return f"is {own:g}, but phase pretrain trains nothing inside the LLaMA; leave it out"
    if own is None and rate is None and base is None and phase != "pretrain":
        return f"is missing, and so are optimiser.lr and optimiser.base_lr; phase {phase} needs one of them"
    return None


@RULES.rule("schedule.min_lr", "optimiser.lr", "optimiser.adapter_lr", "optimiser.lora_lr")
def _lowest_rate(lowest: float, *peaks: float | None) -> str | None:
    smallest = min((peak for peak in peaks if peak is not None), default=None)
    if smallest is not None and lowest > smallest:
        return f"is {lowest:g}; expected at most the peak rate, {smallest:g}"
    return None


@RULES.rule("model.base", "model.fresh")
def _one_start(base: str | None, fresh: FreshAdapter | None) -> str | None:
    if base is not None and fresh is not None:
        return f"is {base!r} and model.fresh is given too; expected one of them: remove the other"
    return "and model.fresh are both missing; give one of them" if base is None and fresh is None else None


@RULES.rule("model.fresh", "model.llama", "model.encoder")
def _parts_of_fresh(fresh: FreshAdapter | None, llama: str | None, encoder: Mapping[str, Any] | None) -> str | None:
    missing = [name for name, part in (("model.llama", llama), ("model.encoder", encoder)) if part is None]
    if fresh is not None and missing:
        return f"is an adapter between an encoder and a LLaMA; give {' and '.join(missing)}"
    return None


@RULES.rule("model.fresh", "phase")
def _fresh_is_trained(fresh: FreshAdapter | None, phase: str) -> str | None:
    if fresh is not None and phase in _KEEP_ADAPTER:
        return f"would stay untrained in phase {phase}; give model.base, or take phase joint"
    return None


@RULES.rule("model.fresh.template")
def _template_exists(template: str | None) -> str | None:
    if template is not None and template not in TEMPLATES:
        return f"is {template!r}; expected one of {', '.join(sorted(TEMPLATES))}"
    return None


@RULES.rule("model.encoder")
def _encoder_exists(encoder: Mapping[str, Any] | None) -> str | None:
    if encoder is not None and encoder.get("kind") not in list(ENCODERS):
        return f"has kind {encoder.get('kind')!r}; expected one of {', '.join(ENCODERS)}"
    return None


@RULES.rule("data.train")
def _train_data(entries: tuple[DatasetEntry, ...]) -> str | None:
    if not entries:
        return "is empty; expected at least one data set"
    num_shares = sum(entry.share is not None for entry in entries)
    if 0 < num_shares < len(entries):
        return f"has a share in {num_shares} of {len(entries)} entries; give it in all of them or in none"
    return None


@RULES.rule("data.validation")
def _no_validation_share(entries: tuple[DatasetEntry, ...]) -> str | None:
    if any(entry.share is not None for entry in entries):
        return "has an entry with a share, but each validation example counts once; leave it out"
    return None


@RULES.rule("data.validation", "data.validation_fraction")
def _one_validation(entries: tuple[DatasetEntry, ...], fraction: float | None) -> str | None:
    if entries and fraction is not None:
        return f"is given and data.validation_fraction is {fraction:g}; expected one of them: remove the other"
    return None


def _needs_validation(every: int | None, entries: tuple[DatasetEntry, ...], fraction: float | None) -> str | None:
    if every is not None and not entries and fraction is None:
        return f"is {every}, but there is no validation data; give data.validation or data.validation_fraction"
    return None


for _name in ("validate_every_steps", "early_stop_patience", "sample_every_steps"):
    RULES.rule(f"run.{_name}", "data.validation", "data.validation_fraction")(_needs_validation)


@RULES.rule("run.sample_questions", "run.sample_every_steps")
def _questions_to_sample(questions: tuple[str, ...], every: int | None) -> str | None:
    if every is not None and not all(question.strip() for question in questions or ("",)):
        return "is empty or has an empty question; expected at least one to ask"
    return None


@RULES.rule("batch.max_tokens", "data.max_tokens")
def _longest_row_fits(batch: int | None, row: int) -> str | None:
    if batch is not None and batch < row:
        return f"is {batch}; expected at least data.max_tokens, which is {row}, so that every row fits in a batch"
    return None


@RULES.rule("data.augment", "data.encode")
def _augments_live(augment: tuple[str, ...], encode: str) -> str | None:
    if augment and encode == "once":
        return "changes nothing where features are made once; set data.encode to live, or leave it out"
    return None


@RULES.rule("batch.max_tokens", "batch.bucketed", "schedule.split_epoch", "data.train")
def _filled_by_buckets(
    most: int | None, bucketed: bool, split_epoch: int, entries: tuple[DatasetEntry, ...]
) -> str | None:
    plain = not bucketed or split_epoch > 1 or any(entry.share is not None for entry in entries)
    if most is not None and plain:
        return "fills batches by length only with batch.bucketed, split_epoch 1 and no shares; leave it out"
    return None


@RULES.rule("model.encoder", "model.base")
def _encoder_beside_base(encoder: Mapping[str, Any] | None, base: str | None) -> str | None:
    if encoder is not None and base is not None and encoder.get("kind") in list(ENCODERS) and not encoder.get("path"):
        return "is given beside model.base without a path; give {kind: mert, path: ...}, or leave it out"
    return None
