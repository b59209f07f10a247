"""How the next token is chosen, and which options are refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mu_llama.engine.sampling import GenerationOptions, choose_token, nucleus
from mu_llama.errors import ConfigError


def logits_of(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


def test_bad_options_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"max_new_tokens=0.*temperature=nan.*top_p=1.5.*stop"):
        GenerationOptions(max_new_tokens=0, temperature=float("nan"), top_p=1.5, stop=("",))


def test_nucleus_keeps_the_token_that_crosses() -> None:
    logits = logits_of(0.3, 0.5, 0.15, 0.05)
    ids, probabilities = nucleus(logits, temperature=1.0, top_p=0.6)
    assert ids.tolist() == [1, 0]
    np.testing.assert_allclose(probabilities, [0.625, 0.375], rtol=1e-6)
    assert nucleus(logits, temperature=1.0, top_p=0.0)[0].tolist() == [1]
    assert nucleus(logits, temperature=1.0, top_p=1.0)[0].tolist() == [1, 0, 2, 3]


def test_sampling_follows_the_probabilities() -> None:
    shares, generator = np.array([0.7, 0.2, 0.1]), np.random.default_rng(0)
    chosen = [choose_token(logits_of(*shares), temperature=1.0, top_p=1.0, generator=generator) for _ in range(3000)]
    assert stats.chisquare(np.bincount(chosen, minlength=3), 3000 * shares).pvalue > 0.01
    assert choose_token(logits_of(*shares), temperature=0.0, top_p=1.0, generator=generator) == 0


@pytest.mark.parametrize("temperature", [1e-3, 100.0])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    _, probabilities = nucleus(np.array([300.0, -300.0, 299.0], np.float32), temperature=temperature, top_p=1.0)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1)
