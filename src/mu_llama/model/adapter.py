"""Encoder features to one audio vector of the LLaMA's width, and from there to audio tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mu_llama.model.config import LAYER_NORM_EPSILON, RMS_EPSILON, WEIGHT_EPSILON, AdapterConfig
from mu_llama.model.retrieval import Blend


class AudioTokens(nn.Module):
    """One audio vector (B, H) to N + C tokens (B, N + C, H) in the space of the LLaMA's embeddings.

    Token i < N is the name of a thing, `names_i`, plus whether it is present: `p_i * present + (1 - p_i) * absent` with
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
        probability = torch.sigmoid(logits)[..., None]  # (B, N, 1)
        tokens: Tensor = self.names + probability * self.present + (1 - probability) * self.absent
        if self._num_choices:
            tokens = torch.cat([tokens, self._choose(logits)], dim=1)
        return tokens

    def _choose(self, logits: Tensor) -> Tensor:
        """(B, N) to (B, C, H)."""
        among = (logits[:, None] * self.sharpness[:, None]).masked_fill(self.members == 0, -torch.inf)  # (B, C, N)
        chosen: Tensor = self.kinds + among.softmax(-1) @ self.names
        return chosen


STD_BUFFER = "feature_deviation"
"""Name of the features' standard deviation in files of weights."""


class WideLinear(nn.Linear):
    """A linear layer that computes in its input's dtype, however narrow its weight is kept.

    A bridge of LLaMA-7B's width has 600 million weights, and is used once a track: it is kept in half precision and
    widened matrix by matrix.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """Map (..., in) to (..., out)."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return nn.functional.linear(input, self.weight.to(input.dtype), bias)


class BridgeBlock(nn.Module):
    """Pre-norm SwiGLU block with a residual: `x + down(silu(gate(n)) * up(n))`, `n = norm(x)`."""

    def __init__(self, hidden_size: int, inner_width: int, *, legacy: bool) -> None:
        super().__init__()
        self.norm: nn.Module
        if legacy:
            self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPSILON)
        else:
            self.norm = nn.RMSNorm(hidden_size, eps=RMS_EPSILON)
        self.gate = WideLinear(hidden_size, inner_width, bias=legacy)
        self.up = WideLinear(hidden_size, inner_width, bias=legacy)
        self.down = WideLinear(inner_width, hidden_size, bias=legacy)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H) to (B, H)."""
        n = self.norm(x)
        out: Tensor = x + self.down(nn.functional.silu(self.gate(n)) * self.up(n))
        return out


class AudioAdapter(nn.Module):
    """Features (B, L, D) to one audio vector (B, H).

    Layer mix (a 1x1 convolution over the L hidden states), L2 normalisation, an optional blend with
    neighbours, a linear projection and the bridge blocks. Source: MU-LLaMA, arXiv 2308.11276, section 3.
    """

    feature_mean: Tensor

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.layer_mix = nn.Conv1d(config.num_encoder_layers, 1, kernel_size=1)
        self.projection = WideLinear(config.encoder_width, config.hidden_size)
        self.blocks = nn.ModuleList(
            BridgeBlock(config.hidden_size, config.bridge_width, legacy=config.legacy_bridge)
            for _ in range(config.num_blocks)
        )
        self.tokens: AudioTokens | None = None
        if config.num_audio_tokens:
            num_names = config.num_audio_tokens - config.num_choices
            self.tokens = AudioTokens(num_names, config.hidden_size, config.num_choices)
        if config.input_scaling == "standardise":
            shape = (config.num_encoder_layers, config.encoder_width)
            self.register_buffer("feature_mean", torch.zeros(shape))
            self.register_buffer(STD_BUFFER, torch.ones(shape))

    @property
    def feature_std(self) -> Tensor:
        """Standard deviation of each feature (L, D), where the adapter standardises them."""
        return self.get_buffer(STD_BUFFER)

    def mix(self, features: Tensor) -> Tensor:
        """Weigh the L hidden states into one: (B, L, D) to (B, D)."""
        if self.config.input_scaling == "standardise":
            features = (features - self.feature_mean) / self.feature_std
        mixed: Tensor = self.layer_mix(features).squeeze(1)  # (B, 1, D) -> (B, D)
        return mixed

    def pool(self, features: Tensor, *, weight: float = 1.0) -> Tensor:
        """Mix and L2-normalise: (B, L, D) to (B, D) of norm `weight / (weight + 1e-6)`."""
        unit = nn.functional.normalize(self.mix(features), dim=-1)
        return unit * (weight / (weight + WEIGHT_EPSILON))

    def bridge(self, pooled: Tensor) -> Tensor:
        """Project and refine: (B, D) to (B, H)."""
        vector: Tensor = self.projection(pooled)
        for block in self.blocks:
            vector = block(vector)
        return vector

    def forward(self, features: Tensor, *, blend: Blend | None = None) -> Tensor:
        """Map features to the audio vector.

        Args:
            features: (B, L, D), averaged over time.
            blend: maps unit vectors (B, D) to unit vectors (B, D), e.g. `NeighbourBlend`.

        Returns:
            (B, H).
        """
        pooled = self.pool(features)
        if blend is not None:
            mixed = blend(pooled.float().numpy(force=True))
            pooled = torch.from_numpy(mixed).to(pooled.device, pooled.dtype)
        return self.bridge(pooled)
