"""Features of a track to its conditioning, in numpy: audio tokens, or terms of the conditioned layers.

It runs once a track, on one vector: each matrix is read from its file, used and dropped, so that a bridge of LLaMA-7B's
width costs the memory of one matrix. A graph would hold all of them, and need a session of its own.
The formulas are those of `model/adapter.py` and `model/conditioning.py`, which are the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu_llama.arrays import FloatArray
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.lora import VALUE_LORA
from mu_llama.engine.onnx.weights import widen
from mu_llama.errors import CheckpointError
from mu_llama.model.config import LAYER_NORM_EPSILON, RMS_EPSILON, WEIGHT_EPSILON, AdapterConfig
from mu_llama.model.retrieval import Blend

ValueProjection = Callable[[int], NDArray[np.float32]]
"""Gives the value projection (KV heads * head width, H) of a conditioned layer, counted from the first of them."""

_NORM_EPSILON = 1e-12
_MEAN, _STD = "adapter.feature_mean", "adapter.feature_deviation"
# Smaller tensors stay in memory, widened, once they were read: reading and widening takes longer than using them.
_MAX_CACHED_ELEMENTS = 1 << 22
_PIECE_ELEMENTS = 1 << 20


class Conditioner:
    """Makes conditioning of features.

    Args:
        sizes: of the adapter.
        tensors: the adapter's and conditioner's, under the names `adapter.*` and `conditioner.*`.
        value_projection: of the LLaMA, e.g. `OnnxEngine.value_projection`; used where layers are conditioned.
        head_width: of one attention head.
    """

    def __init__(
        self,
        sizes: AdapterConfig,
        tensors: Mapping[str, LazyTensor],
        *,
        value_projection: ValueProjection | None = None,
        head_width: int = 0,
    ) -> None:
        self._sizes, self._tensors = sizes, tensors
        self._value_projection, self._head_width = value_projection, head_width
        self._cached: dict[str, NDArray[np.float32]] = {}

    def condition(self, features: NDArray[Any], *, blend: Blend | None = None) -> NDArray[np.float32]:
        """Make the conditioning of a track: once, for every token and question.

        Args:
            features: (L, D), averaged over time.
            blend: of the pooled features with neighbours', or None.

        Returns:
            (N, H), audio tokens; or (Q, A), terms of the conditioned layers.

        Raises:
            CheckpointError: if the features are of an encoder that the adapter wasn't made for.
        """
        sizes = self._sizes
        if features.shape != (sizes.num_encoder_layers, sizes.encoder_width):
            raise CheckpointError(
                f"the encoder gives {features.shape[0]} layers of width {features.shape[-1]}; this adapter was made "
                f"for {sizes.num_encoder_layers} of {sizes.encoder_width}: use the encoder it was trained with"
            )
        audio = self.audio_vector(features, blend=blend)
        return self._audio_tokens(audio) if sizes.num_audio_tokens else self._terms(audio)

    def audio_vector(self, features: NDArray[Any], *, blend: Blend | None = None) -> NDArray[np.float32]:
        """Mix, normalize, project and refine features (L, D) to the audio vector (H,)."""
        values = features.astype(np.float32)
        if self._sizes.input_scaling == "standardise":
            values = (values - self._read(_MEAN)) / self._read(_STD)
        weight = self._read("adapter.layer_mix.weight").reshape(-1)  # (1, L, 1) -> (L,)
        mixed = _product(weight, values) + self._read("adapter.layer_mix.bias")
        pooled = mixed / max(float(np.linalg.norm(mixed)), _NORM_EPSILON) / np.float32(1 + WEIGHT_EPSILON)
        if blend is not None:
            pooled = blend(pooled[None])[0]
        vector = self._linear("adapter.projection", pooled)
        for block in range(self._sizes.num_blocks):
            vector = self._bridge_block(f"adapter.blocks.{block}", vector)
        return vector

    def _bridge_block(self, name: str, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        weight = self._read(f"{name}.norm.weight")
        if self._sizes.legacy_bridge:
            centred = vector - vector.mean()
            normalized = centred / np.sqrt((centred**2).mean() + np.float32(LAYER_NORM_EPSILON))
            normalized = normalized * weight + self._read(f"{name}.norm.bias")
        else:
            normalized = vector / np.sqrt((vector**2).mean() + np.float32(RMS_EPSILON)) * weight
        gate, up = self._linear(f"{name}.gate", normalized), self._linear(f"{name}.up", normalized)
        return vector + self._linear(f"{name}.down", gate * _sigmoid(gate) * up)

    def _audio_tokens(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H,) to (N, H): names with presence, then what is chosen of each kind."""
        logits = self._linear("adapter.tokens.reading", audio)
        probability = _sigmoid(logits)[:, None]
        names = self._read("adapter.tokens.names")
        tokens = names + probability * self._read("adapter.tokens.present")
        tokens += (1 - probability) * self._read("adapter.tokens.absent")
        if not self._sizes.num_choices:
            return tokens
        among = logits[None] * self._read("adapter.tokens.sharpness")[:, None]  # (C, N)
        among[self._read("adapter.tokens.members") == 0] = -np.inf
        weights = np.exp(among - among.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return np.concatenate([tokens, self._read("adapter.tokens.kinds") + _product(weights, names)])

    def _terms(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H,) to (Q, A): `tanh(gate) * Wv (audio + prefix)`, less what a LoRA merged into Wv adds."""
        assert self._value_projection is not None, "a model with conditioned layers has value projections"
        prefix, gate = self._read("conditioner.prefix"), np.tanh(self._read("conditioner.gate"))
        has_lora = VALUE_LORA[0] in self._tensors
        if has_lora:
            down, up = (self._read(name) for name in VALUE_LORA)
        terms = []
        for layer in range(self._sizes.num_conditioned_layers):
            vector = audio + prefix[layer]
            value = _product(self._value_projection(layer), vector)
            if has_lora:
                value = value - _product(up[layer], _product(down[layer], vector))
            heads = value.reshape(-1, self._head_width)  # (KV heads * width,) -> (KV heads, width)
            repeated = np.repeat(heads, gate.shape[1] // len(heads), axis=0)
            terms.append((repeated * gate[layer][:, None]).reshape(-1))  # (heads, width) -> (A,)
        return np.stack(terms)

    def _linear(self, name: str, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Multiply by a matrix, widened some rows at a time where it is stored in half precision."""
        matrix = self._stored(f"{name}.weight")
        num_rows = max(1, _PIECE_ELEMENTS // matrix.shape[1])
        pieces = [
            _product(widen(matrix[start : start + num_rows]), vector) for start in range(0, len(matrix), num_rows)
        ]
        product = np.concatenate(pieces)
        bias = f"{name}.bias"
        return product + self._read(bias) if bias in self._tensors else product

    def _read(self, name: str) -> NDArray[np.float32]:
        return widen(self._stored(name))

    def _stored(self, name: str) -> NDArray[Any]:
        if name in self._cached:
            return self._cached[name]
        if name not in self._tensors:
            raise CheckpointError(f"weight {name!r} is missing; expected all weights of the adapter")
        values = self._tensors[name].read()
        if values.size <= _MAX_CACHED_ELEMENTS:
            values = self._cached[name] = widen(values)
        return values


def _product(one: FloatArray, other: FloatArray) -> FloatArray:
    """Multiply with sums in float64, so that the last bit doesn't depend on how many threads BLAS uses.

    An int8 graph rounds what it reads, and a model's two likeliest words may be as near as that bit. Matrices beyond
    `_MAX_CACHED_ELEMENTS` are multiplied in float32: widening them would take longer than all the rest.
    """
    if max(one.size, other.size) > _MAX_CACHED_ELEMENTS:
        return one @ other
    product: FloatArray = (one.astype(np.float64) @ other.astype(np.float64)).astype(np.float32)
    return product


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without overflow, whatever the sign."""
    half: NDArray[np.float32] = 0.5 * (1 + np.tanh(0.5 * values))
    return half
