"""What is heard as tokens before the prompt: one for each thing that may be there."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AudioTokens(nn.Module):
    """One audio vector (B, H) to N tokens (B, N, H) in the space of the LLaMA's embeddings.

    Token i is the name of a thing, `names_i`, plus whether it is heard: `p_i * present + (1 - p_i) * absent` with
    `p = sigmoid(reading(audio))`. So the LLaMA looks up what it is asked about by attending to its name, as it
    does with words of a prompt, and whatever it learns to do with one name serves all of them.

    Args:
        num_tokens: N.
        hidden_size: H.
    """

    def __init__(self, num_tokens: int, hidden_size: int) -> None:
        super().__init__()
        self.reading = nn.Linear(hidden_size, num_tokens)
        self.names = nn.Parameter(torch.zeros(num_tokens, hidden_size))
        self.present = nn.Parameter(torch.zeros(hidden_size))
        self.absent = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, audio: Tensor) -> Tensor:
        """Compute the tokens: (B, H) to (B, N, H)."""
        heard = torch.sigmoid(self.reading(audio))[..., None]  # (B, N, 1)
        tokens: Tensor = self.names + heard * self.present + (1 - heard) * self.absent
        return tokens
