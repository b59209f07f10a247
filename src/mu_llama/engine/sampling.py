"""How answers are generated, and how the next token is chosen from logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mu_llama.errors import ConfigError

# Below, probabilities leave float32; above, they are noise.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 100.0

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GenerationOptions:
    """How answers are generated."""

    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; higher values vary more."""
    top_p: float = 1.0
    """Sample only among the likeliest tokens up to this total probability."""
    seed: int | None = None
    """Makes sampling repeatable."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are cut off."""

    def __post_init__(self) -> None:
        bad = []
        if self.max_new_tokens < 1:
            bad.append(f"max_new_tokens={self.max_new_tokens} (expected 1 or more)")
        if self.temperature != 0.0 and not MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE:
            bad.append(f"temperature={self.temperature} (expected 0, or {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g})")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            bad.append(f"seed={self.seed} (expected 0 to 2**63 - 1)")
        if not 0.0 <= self.top_p <= 1.0:
            bad.append(f"top_p={self.top_p} (expected 0 to 1)")
        if any(not text for text in self.stop):
            bad.append("stop holds an empty text")
        if bad:
            raise ConfigError("generation: " + ", ".join(bad))


def nucleus(
    logits: Logits, *, temperature: float, top_p: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Keep the most likely tokens up to a total probability.

    A token is dropped where the probability of those before it exceeds top_p, so the first always stays.
    Source: Holtzman et al. 2020; the order of operations is the published system's.

    Args:
        logits: (V,) float32.
        temperature: positive divisor of the logits.
        top_p: 0 to 1.

    Returns:
        Token ids (K,), most likely first, and their renormalised probabilities (K,).
    """
    scaled = logits / np.float32(temperature)
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    ids = np.argsort(-probabilities, kind="stable")
    ordered = probabilities[ids]
    is_kept = np.cumsum(ordered) - ordered <= top_p
    is_kept[0] = True
    ids, ordered = ids[is_kept], ordered[is_kept]
    return ids, ordered / ordered.sum()


def choose_token(logits: Logits, *, temperature: float, top_p: float, generator: np.random.Generator) -> int:
    """Pick one token: the most likely at temperature 0, else a sample from the nucleus.

    Args:
        logits: (V,) float32.
        temperature: 0 or more.
        top_p: 0 to 1.
        generator: source of randomness.
    """
    if temperature == 0.0:
        return int(logits.argmax())
    ids, probabilities = nucleus(logits, temperature=temperature, top_p=top_p)
    # The place of one random number among the sums: the last sum may round to less than 1.
    place = int(np.searchsorted(np.cumsum(probabilities), generator.random(), side="right"))
    return int(ids[min(place, len(ids) - 1)])
