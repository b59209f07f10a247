"""What is heard as tokens before the prompt: one for each thing that may be there, and for each choice among them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AudioTokens(nn.Module):
    """One audio vector (B, H) to N + C tokens (B, N + C, H) in the space of the LLaMA's embeddings.

    Token i < N is the name of a thing, `names_i`, plus whether it is heard: `p_i * present + (1 - p_i) * absent` with
    `p = sigmoid(l)`, `l = reading(audio)`. So the LLaMA looks up what it is asked about by attending to its name, as it
    does with words of a prompt, and whatever it learns to do with one name serves all of them.

    Token N + c says which of several things is likeliest (which genre, which ensemble): the name of the kind plus the
    members' names, weighted, `kinds_c + sum_i softmax_i(sharpness_c * l_i) names_i` over the members i of the kind.
    A small language model finds one name among eighty readings badly; this is the name itself.

    Args:
        num_names: N.
        hidden_size: H.
        num_choices: C.
    """

    members: Tensor
    """(C, N): which names each kind has."""

    def __init__(self, num_names: int, hidden_size: int, num_choices: int = 0) -> None:
        super().__init__()
        self.reading = nn.Linear(hidden_size, num_names)
        self.names = nn.Parameter(torch.zeros(num_names, hidden_size))
        self.present = nn.Parameter(torch.zeros(hidden_size))
        self.absent = nn.Parameter(torch.zeros(hidden_size))
        if num_choices:
            self.kinds = nn.Parameter(torch.zeros(num_choices, hidden_size))
            self.sharpness = nn.Parameter(torch.ones(num_choices))
            self.register_buffer("members", torch.ones(num_choices, num_names))
        self._num_choices = num_choices

    def forward(self, audio: Tensor) -> Tensor:
        """Compute the tokens: (B, H) to (B, N + C, H)."""
        logits = self.reading(audio)
        heard = torch.sigmoid(logits)[..., None]  # (B, N, 1)
        tokens: Tensor = self.names + heard * self.present + (1 - heard) * self.absent
        if self._num_choices:
            tokens = torch.cat([tokens, self._choose(logits)], dim=1)
        return tokens

    def _choose(self, logits: Tensor) -> Tensor:
        """(B, N) to (B, C, H)."""
        among = (logits[:, None] * self.sharpness[:, None]).masked_fill(self.members == 0, -torch.inf)  # (B, C, N)
        chosen: Tensor = self.kinds + among.softmax(-1) @ self.names
        return chosen
