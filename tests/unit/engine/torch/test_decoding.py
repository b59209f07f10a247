"""The decode loop against transformers' own generate, and its batching against itself."""

from __future__ import annotations

import pytest
import torch

from mu_llama.engine.sampling import GenerationOptions, choose_token, nucleus
from mu_llama.engine.torch.decoding import TokenDecoder
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.errors import ConfigError, QuestionError
from tests.factories.models import make_model

PROMPTS = [[1, 5, 9], [2, 4, 6, 8, 10, 12, 14], [3], [7, 7, 7, 7]]


def written(
    model: MuLlama, prompts: list[list[int]], conditioning: torch.Tensor | None, **settings: object
) -> list[list[int]]:
    options = GenerationOptions(**{"max_new_tokens": 20, **settings})  # type: ignore[arg-type]
    rows: list[list[int]] = [[] for _ in prompts]
    decoder = TokenDecoder(model, prompts=prompts, conditioning=conditioning, options=options, eos_ids=frozenset({0}))
    for token in decoder:
        if token.id is not None:
            rows[token.row].append(token.id)
    return rows


def test_equals_transformers_generate() -> None:
    model = make_model()
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        expected = model.llama.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, eos_token_id=0, pad_token_id=0
        )[0, len(prompt) :].tolist()
        expected = expected[: expected.index(0)] if 0 in expected else expected
        assert written(model, [prompt], None) == [expected]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "top_p": 0.8, "seed": 3}])
def test_batch_equals_single(settings: dict[str, float]) -> None:
    model = make_model(seed=1)
    conditioning = model.condition(torch.randn(len(PROMPTS), 2, 7)).detach()
    single = [written(model, [prompt], conditioning[i : i + 1], **settings)[0] for i, prompt in enumerate(PROMPTS)]
    assert written(model, PROMPTS, conditioning, **settings) == single
    assert len({tuple(row) for row in single}) > 1


def test_rows_that_end_leave_the_batch() -> None:
    model = make_model(seed=1)
    sizes: list[int] = []
    handle = model.llama.register_forward_pre_hook(
        lambda _, __, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    decoder = TokenDecoder(
        model, prompts=PROMPTS, conditioning=None, options=GenerationOptions(max_new_tokens=6), eos_ids=frozenset({999})
    )
    for token in decoder:
        if token.row == 2:
            decoder.finish(2)
    handle.remove()
    assert sizes == [4, 3, 3, 3, 3, 3]


def test_the_context_limits_the_answer() -> None:
    model = make_model()
    rows = written(model, [[1] * 60], None, max_new_tokens=500)
    assert len(rows[0]) <= 4
    with pytest.raises(QuestionError, match="context 64"):
        written(model, [[1] * 64], None)


def test_grad_mode_is_left_alone_between_tokens() -> None:
    decoder = TokenDecoder(
        make_model(), prompts=[[1]], conditioning=None, options=GenerationOptions(max_new_tokens=3), eos_ids=frozenset()
    )
    for _ in decoder:
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_bad_options_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"max_new_tokens=0.*temperature=nan.*top_p=1.5.*stop"):
        GenerationOptions(max_new_tokens=0, temperature=float("nan"), top_p=1.5, stop=("",))


def test_nucleus_keeps_the_token_that_crosses() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    ids, probabilities = nucleus(logits, temperature=1.0, top_p=0.6)
    assert ids.tolist() == [0, 1]
    torch.testing.assert_close(probabilities, torch.tensor([0.625, 0.375]))
    assert nucleus(logits, temperature=1.0, top_p=0.0)[0].tolist() == [0]


def test_sampling_follows_the_probabilities() -> None:
    logits, generator = torch.log(torch.tensor([0.7, 0.2, 0.1])), torch.Generator().manual_seed(0)
    chosen = [choose_token(logits, temperature=1.0, top_p=1.0, generator=generator) for _ in range(3000)]
    shares = torch.bincount(torch.tensor(chosen), minlength=3) / 3000
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.2, 0.1]), atol=0.03, rtol=0)
    assert choose_token(logits, temperature=0.0, top_p=1.0, generator=None) == 0
