"""Clips with their features and conversations, ready for the training loop."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from questions import QA, Clip
from safetensors import safe_open
from torch import Tensor

from mu_llama.prompts import PromptTemplate, Turn
from mu_llama.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Example:
    """One clip, with everything known about it."""

    id: str
    split: str
    group: str
    clip: Clip
    patches: Tensor
    """(P, D)."""
    weights: Tensor
    """(P,), summing to 1."""

    def features(self, rng: random.Random | None = None) -> Tensor:
        """Average the patches to (1, D); with a source of randomness, some of them only (a shorter excerpt)."""
        if rng is None:
            return self.weights[None] @ self.patches
        count = rng.randint(1, len(self.patches))
        chosen = torch.tensor(rng.sample(range(len(self.patches)), count))
        weights = self.weights[chosen] + 1e-3
        return (weights / weights.sum())[None] @ self.patches[chosen]


def read_examples(work: Path) -> list[Example]:
    """Read clips.jsonl and features.safetensors."""
    examples = []
    with safe_open(work / "features.safetensors", "pt") as file:
        names = json.loads(file.metadata()["tag_names"])
        for line in (work / "clips.jsonl").read_text().splitlines():
            row = json.loads(line)
            tags = dict(zip(names, file.get_tensor(f"{row['id']}/tags").tolist(), strict=True))
            examples.append(
                Example(
                    id=row["id"],
                    split=row["split"],
                    group=row["group"],
                    clip=Clip(row["labels"], tags),
                    patches=file.get_tensor(f"{row['id']}/features"),
                    weights=file.get_tensor(f"{row['id']}/weights"),
                )
            )
    return examples


def tokenise(turns: list[QA], template: PromptTemplate, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Turn a conversation into ids and labels; only answers and their end token are labelled, the rest is -100."""
    ids: list[int] = []
    labels: list[int] = []
    done: list[Turn] = []
    for turn in turns:
        prompt = tokenizer.encode_prompt(template.render([*done, Turn(turn.question)]))
        assert prompt[: len(ids)] == ids, "the prompt of a turn must begin with the turns before it"
        labels += [-100] * (len(prompt) - len(ids))
        answer = tokenizer.encode_prompt(turn.answer + template.after.rstrip("\n"))
        ids = prompt + answer
        labels += answer
        done.append(Turn(turn.question, turn.answer))
    return ids, labels


def stack(rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad on the right: ids (B, T), labels (B, T), mask (B, T)."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    return ids, labels, mask
