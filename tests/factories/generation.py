"""Answers of an engine as token ids, through the scheduler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mu_llama.engine.prefix import PrefixCache, Prompt
from mu_llama.engine.protocol import Engine
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.engine.scheduler import Scheduler


def generate(
    engine: Engine,
    prompts: Sequence[Prompt | Sequence[int]],
    conditioning: Sequence[npt.NDArray[np.float32]] | None = None,
    *,
    eos_ids: frozenset[int] = frozenset(),
    prefixes: Sequence[PrefixCache] | None = None,
    max_rows: int = 16,
    **settings: object,
) -> list[list[int]]:
    """The tokens of each answer; all prompts are submitted at once."""
    options = GenerationOptions(**{"max_new_tokens": 20, **settings})  # type: ignore[arg-type]
    scheduler = Scheduler(engine, max_rows=max_rows)
    generations = [
        scheduler.submit(
            prompt if isinstance(prompt, Prompt) else Prompt(list(prompt)),
            None if conditioning is None else conditioning[index],
            options=options,
            eos_ids=eos_ids,
            prefix=None if prefixes is None else prefixes[index],
        )
        for index, prompt in enumerate(prompts)
    ]
    answers: list[list[int]] = [[] for _ in prompts]
    for index, token in scheduler.stream(generations):
        if token.id is not None:
            answers[index].append(token.id)
    return answers
