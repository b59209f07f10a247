"""Choose the next token from logits."""

from __future__ import annotations

import torch
from torch import Tensor


def nucleus(logits: Tensor, *, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
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
    probabilities = torch.softmax(logits / temperature, dim=-1)
    ordered, ids = torch.sort(probabilities, descending=True)
    before = torch.cumsum(ordered, dim=-1) - ordered
    kept = before <= top_p
    kept[0] = True
    ordered, ids = ordered[kept], ids[kept]
    return ids, ordered / ordered.sum()


def choose_token(logits: Tensor, *, temperature: float, top_p: float, generator: torch.Generator | None) -> int:
    """Pick one token: the most likely at temperature 0, else a sample from the nucleus.

    Args:
        logits: (V,) float32.
        temperature: 0 or more.
        top_p: 0 to 1.
        generator: source of randomness; None for torch's global one.
    """
    if temperature == 0.0:
        return int(logits.argmax())
    ids, probabilities = nucleus(logits.cpu(), temperature=temperature, top_p=top_p)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])
