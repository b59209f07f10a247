"""Blend a track's vector with its nearest neighbours out of an index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mu_llama.arrays import FloatArray
from mu_llama.errors import ConfigError

Blend = Callable[[FloatArray], FloatArray]
"""Mixes unit vectors (B, D) with others, as `NeighbourBlend` does."""


@dataclass(frozen=True)
class BlendOptions:
    """How far a track's vector moves towards its neighbours."""

    weight: float = 0.0
    """Share of the neighbours in the result, from 0 (off) to 1."""
    num_neighbours: int = 100
    """How many vectors of the index take part; fewer if the index holds fewer."""
    sharpness: float = 20.0
    """Factor on the similarities before the softmax over neighbours."""

    def __post_init__(self) -> None:
        bad = []
        if not 0.0 <= self.weight <= 1.0:
            bad.append(f"weight={self.weight} (expected 0 to 1)")
        if self.num_neighbours < 1:
            bad.append(f"num_neighbours={self.num_neighbours} (expected 1 or more)")
        if bad:
            raise ConfigError("neighbour blend: " + ", ".join(bad))


class NeighbourBlend:
    """Inner-product search over vectors (N, D), and the published mix of a vector with its neighbours.

    `mixed = normalise((1 - w) * vector + w * normalise(softmax(sharpness * similarity) @ neighbours))`.
    """

    def __init__(self, vectors: FloatArray, options: BlendOptions) -> None:
        if vectors.ndim != 2 or vectors.shape[0] == 0:
            raise ConfigError(f"the index has shape {tuple(vectors.shape)}; expected (N, D) with N at least 1")
        self.vectors = np.asarray(vectors, np.float32)
        self.options = options

    def search(self, queries: FloatArray, *, num_neighbours: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Find the most similar vectors.

        Args:
            queries: (B, D).
            num_neighbours: k, cut to the size of the index.

        Returns:
            Similarities (B, k), highest first, and indices (B, k).
        """
        if queries.shape[-1] != self.vectors.shape[1]:
            raise ConfigError(
                f"the index holds vectors of width {self.vectors.shape[1]}; this model's are {queries.shape[-1]} wide: "
                "use an index that was built with this model's encoder"
            )
        k = min(num_neighbours, self.vectors.shape[0])
        similarities = queries.astype(np.float32) @ self.vectors.T
        indices = np.argsort(-similarities, axis=-1, kind="stable")[:, :k]
        return np.take_along_axis(similarities, indices, axis=-1), indices

    def __call__(self, vector: FloatArray) -> FloatArray:
        """Mix each row of (B, D) with its neighbours; the result has unit rows, also at weight 0."""
        similarities, indices = self.search(vector, num_neighbours=self.options.num_neighbours)
        scores = similarities * np.float32(self.options.sharpness)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)  # (B, k)
        prototype = _unit(np.einsum("bk,bkd->bd", shares, self.vectors[indices]))
        weight = np.float32(self.options.weight)
        return _unit((1 - weight) * vector + weight * prototype)


def _unit(rows: FloatArray) -> FloatArray:
    """Scale rows (B, D) to unit length; zeros stay."""
    scaled: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return scaled
