"""New weights to start from: an adapter, and a LoRA that changes nothing yet.

Each tensor is drawn when it is read, from its own generator, seeded by the run's seed and the tensor's name.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mu_llama.arrays import FLOAT32, to_numpy
from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_memory, zeros
from mu_llama.errors import ConfigError
from mu_llama.model.adapter import AudioAdapter
from mu_llama.model.conditioning import LayerConditioner
from mu_llama.model.config import AdapterConfig

_MIN_STD = 1e-3
_STANDARDISED_GATE = 0.1
_STANDARDISED_PROJECTION = 0.1
_EMBEDDING = 0.1


@dataclass(frozen=True)
class FeatureStatistics:
    """How an encoder's features are distributed over the training tracks."""

    mean: Tensor
    """(L, D)."""
    std: Tensor
    """(L, D), standard deviation; never below 1e-3."""


def feature_statistics(features: Iterable[Tensor]) -> FeatureStatistics:
    """Measure mean and standard deviation in one pass.

    Args:
        features: (L, D) of each track.

    Raises:
        ConfigError: if fewer than two came.

    Example:
        >>> feature_statistics([torch.zeros(1, 1), torch.full((1, 1), 2.0)]).mean
        tensor([[1.]])
    """
    count, mean, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for value in features:  # Welford's update
        count += 1
        change = value.double() - mean
        mean = mean + change / count
        squares = squares + change * (value.double() - mean)
    if count < 2:
        raise ConfigError(f"features of {count} tracks came; expected at least 2 to measure how they are distributed")
    std = (squares / (count - 1)).sqrt().clamp_min(_MIN_STD)
    return FeatureStatistics(mean.float(), std.float())


def fresh_adapter(
    config: AdapterConfig, *, seed: int, statistics: FeatureStatistics | None = None
) -> dict[str, LazyTensor]:
    """Describe an untrained adapter.

    Without statistics it starts as the published one: gates 0 (the audio has no effect at first), prefix normal. With
    them it starts as `mini`: features are standardised, gates 0.1 and a projection so small that the untrained term
    hardly disturbs the text. The other matrices are uniform in +-1/sqrt(inputs).

    Args:
        config: sizes; `input_scaling` must be `standardise` exactly where statistics are given.
        seed: of everything drawn.
        statistics: of the features to come, or None.

    Returns:
        Float32 tensors for `ModelSpec.adapter`.

    Raises:
        ConfigError: if sizes and statistics contradict each other.
    """
    shape = (config.num_encoder_layers, config.encoder_width)
    came = None if statistics is None else tuple(statistics.mean.shape)
    if came != (shape if config.input_scaling == "standardise" else None):
        raise ConfigError(
            f"input_scaling is {config.input_scaling!r} and the features' statistics have shape {came}; expected "
            f"'standardise' with {shape}, or 'none' without statistics"
        )
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "adapter": AudioAdapter(config),
            "conditioner": LayerConditioner(
                config.num_conditioned_layers, config.hidden_size, num_heads=config.num_heads, head_width=1
            ),
        }
    shapes = {
        f"{part}.{name}": tuple(value.shape)
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    return {name: _fresh(name, shapes, seed, statistics) for name in shapes}


def fresh_lora(module: str, weight: tuple[int, ...], *, rank: int, seed: int) -> tuple[LazyTensor, LazyTensor]:
    """Describe a LoRA whose product is zero: `lora_A` (rank, in) uniform in +-1/sqrt(in), `lora_B` (out, rank) zeros.

    Args:
        module: its name, which decides the numbers together with the seed.
        weight: shape (out, in) of the module's weight.
        rank: of the LoRA.
        seed: of `lora_A`.
    """
    num_out, num_in = weight
    return _uniform(f"{module}.lora_A", (rank, num_in), num_in, seed), zeros((num_out, rank), FLOAT32)


def _fresh(
    name: str, shapes: dict[str, tuple[int, ...]], seed: int, statistics: FeatureStatistics | None
) -> LazyTensor:
    shape = shapes[name]
    if name == "conditioner.gate":
        return _constant(shape, 0.0 if statistics is None else _STANDARDISED_GATE)
    if name == "conditioner.prefix":
        return zeros(shape, FLOAT32) if statistics is not None else _normal(name, shape, 1.0, seed)
    if statistics is not None:
        given = {"adapter.feature_mean": statistics.mean, "adapter.feature_deviation": statistics.std}
        if name in given:
            return in_memory(to_numpy(given[name]))
        if name.startswith("adapter.layer_mix."):
            return _constant(shape, 1.0 if name.endswith("weight") else 0.0)
        if name == "adapter.projection.weight":
            return _normal(name, shape, _STANDARDISED_PROJECTION, seed)
    if name.endswith((".members", ".sharpness")):  # choices are among all names
        return _constant(shape, 1.0)
    if name.startswith("adapter.tokens.") and "reading" not in name:
        return _normal(name, shape, _EMBEDDING, seed)
    module, _, kind = name.rpartition(".")
    if module.endswith(".norm"):
        return _constant(shape, 1.0 if kind == "weight" else 0.0)
    return _uniform(name, shape, math.prod(shapes[f"{module}.weight"][1:]), seed)


def _generator(name: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))


def _uniform(name: str, shape: tuple[int, ...], num_in: int, seed: int) -> LazyTensor:
    bound = num_in**-0.5
    return _drawn(shape, lambda: torch.empty(shape).uniform_(-bound, bound, generator=_generator(name, seed)))


def _normal(name: str, shape: tuple[int, ...], std: float, seed: int) -> LazyTensor:
    return _drawn(shape, lambda: torch.empty(shape).normal_(std=std, generator=_generator(name, seed)))


def _constant(shape: tuple[int, ...], value: float) -> LazyTensor:
    return _drawn(shape, lambda: torch.full(shape, value))


def _drawn(shape: tuple[int, ...], draw: Callable[[], Tensor]) -> LazyTensor:
    return LazyTensor(shape, FLOAT32, lambda: to_numpy(draw()))
