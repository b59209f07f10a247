"""Measurements while training: the loss on validation rows, and sample answers about validation tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.engine.prefix import Prompt
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.engine.scheduler import Scheduler
from mu_llama.engine.torch.engine import TorchEngine
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.text.prompts import Turn
from mu_llama.text.tokenizer import Tokenizer
from mu_llama.training.collate import TokenizedExamples, make_batch
from mu_llama.training.example import Example
from mu_llama.training.features import Features
from mu_llama.training.sampler import MicroBatch, plain_batches

_SAMPLE_TOKENS = 64


@torch.no_grad()
def validation_loss(
    engine: nn.Module, tokenized: TokenizedExamples, features: Features, *, batch_size: int, accelerator: Any
) -> float:
    """Mean loss over all target tokens, shared among processes; features are not augmented.

    Each process makes as many forward passes, because those of sharded weights wait for one another.
    """
    order = sorted(range(len(tokenized.rows)), key=lambda row: len(tokenized.rows[row].ids))
    batches = plain_batches(order, batch_size=batch_size)
    total = torch.zeros(2, dtype=torch.float64)
    was_training = engine.training
    engine.eval()
    for first in range(0, len(batches), accelerator.num_processes):
        number = min(first + accelerator.process_index, len(batches) - 1)
        micro = MicroBatch(number, 0, number, len(batches), tuple(batches[number]))
        batch = make_batch(micro, tokenized, features, accelerator.device, seed=None)
        is_counted = first + accelerator.process_index < len(batches)
        num_targets = is_counted * sum(tokenized.rows[row].num_target_tokens for row in micro.rows)
        with accelerator.autocast():
            loss = engine(batch)
        total += torch.tensor([float(loss) * num_targets, num_targets], dtype=torch.float64)
    engine.train(was_training)
    summed = accelerator.reduce(total.to(accelerator.device, torch.float32), reduction="sum")
    return float(summed[0] / summed[1])


@torch.no_grad()
def sample_answers(
    model: MuLlama,
    parts: ModelSpec,
    tokenizer: Tokenizer,
    *,
    examples: Sequence[Example],
    features: Features,
    questions: Sequence[str],
    accelerator: Any,
) -> list[dict[str, str]]:
    """Answer fixed questions about fixed tracks, greedily."""
    was_training = model.training
    model.eval()
    rows = [(example, question) for example in examples for question in questions]
    options, scheduler = GenerationOptions(max_new_tokens=_SAMPLE_TOKENS), Scheduler(TorchEngine(model))
    written: list[list[int]] = [[] for _ in rows]
    with accelerator.autocast():
        generations = [
            scheduler.submit(
                Prompt(tokenizer.encode_prompt(parts.template.render([Turn(question)]))),
                scheduler.engine.condition(features.of(example).numpy()),
                options=options,
                eos_ids=tokenizer.eos_ids,
            )
            for example, question in rows
        ]
        for index, token in scheduler.stream(generations):
            if token.id is not None:
                written[index].append(token.id)
    model.train(was_training)
    return [
        {"audio": str(example.audio), "question": question, "answer": tokenizer.decode(ids).strip()}
        for (example, question), ids in zip(rows, written, strict=True)
    ]
