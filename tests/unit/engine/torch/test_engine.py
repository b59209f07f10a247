"""Rows of the torch engine against transformers' own generate, and many rows against each alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mu_llama.engine.torch.engine import TorchEngine
from mu_llama.errors import QuestionError
from tests.factories.generation import generate
from tests.factories.models import make_model

PROMPTS = [[1, 5, 9], [2, 4, 6, 8, 10, 12, 14], [3], [7, 7, 7, 7]]
EOS = frozenset({0})


def terms(engine: TorchEngine, num_rows: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [engine.condition(random.standard_normal((2, 7), np.float32)) for _ in range(num_rows)]


def test_equals_transformers_generate() -> None:
    model = make_model()
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        expected = model.llama.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, eos_token_id=0, pad_token_id=0
        )[0, len(prompt) :].tolist()
        expected = expected[: expected.index(0)] if 0 in expected else expected
        assert generate(TorchEngine(model), [prompt], eos_ids=EOS) == [expected]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "top_p": 0.8, "seed": 3}])
def test_batch_equals_single(settings: dict[str, float]) -> None:
    engine = TorchEngine(make_model(seed=1))
    conditioning = terms(engine, len(PROMPTS))
    single = [
        generate(engine, [prompt], [own], eos_ids=EOS, **settings)[0]
        for prompt, own in zip(PROMPTS, conditioning, strict=True)
    ]
    assert generate(engine, PROMPTS, conditioning, eos_ids=EOS, **settings) == single
    assert generate(engine, PROMPTS, conditioning, eos_ids=EOS, max_rows=2, **settings) == single
    assert len({tuple(row) for row in single}) > 1


def test_rows_that_end_leave_the_batch() -> None:
    model = make_model(seed=1)
    rows = TorchEngine(model).new_rows(4)
    numbers = [rows.join(None) for _ in PROMPTS]
    for row, prompt in zip(numbers, PROMPTS, strict=True):
        rows.read(row, prompt)
    sizes: list[tuple[int, ...]] = []
    handle = model.llama.register_forward_pre_hook(
        lambda _, __, kwargs: sizes.append((len(kwargs["input_ids"]), kwargs["past_key_values"].get_seq_length())),
        with_kwargs=True,
    )
    rows.step(dict.fromkeys(numbers, 5))
    rows.leave(numbers[1])  # the longest: what was padded for it goes too
    rows.step(dict.fromkeys([numbers[0], numbers[2], numbers[3]], 5))
    rows.step({numbers[2]: 5})
    rows.step({numbers[2]: 5, numbers[0]: 5})
    handle.remove()
    assert sizes == [(4, 7), (3, 5), (1, 3), (2, 5)]
    assert [rows.length(number) for number in (numbers[0], numbers[2], numbers[3])] == [6, 5, 6]


def test_the_context_limits_the_answer() -> None:
    engine = TorchEngine(make_model())
    assert len(generate(engine, [[1] * 60], max_new_tokens=500)[0]) == 4
    with pytest.raises(QuestionError, match="context 64"):
        generate(engine, [[1] * 64])


def test_grad_mode_is_left_alone() -> None:
    engine = TorchEngine(make_model())
    rows = engine.new_rows(1)
    row = rows.join(None)
    rows.read(row, [1])
    rows.step({row: 2})
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_rows_with_and_without_conditioning_step_together() -> None:
    engine = TorchEngine(make_model(seed=1))
    own = terms(engine, 1)[0]

    def logits(company: list[np.ndarray | None]) -> list[np.ndarray]:
        rows = engine.new_rows(2)
        numbers = [rows.join(conditioning) for conditioning in company]
        for number in numbers:
            rows.read(number, PROMPTS[0])
        stepped = rows.step(dict.fromkeys(numbers, 5))
        return [stepped[number] for number in numbers]

    with_terms, without = logits([own])[0], logits([None])[0]
    assert not np.allclose(with_terms, without, atol=1e-3)
    for together, alone in zip(logits([own, None]), (with_terms, without), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-5)
