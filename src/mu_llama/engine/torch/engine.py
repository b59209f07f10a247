"""The torch engine: rows over transformers' LLaMA, on any device and in any precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache

from mu_llama.arrays import FloatArray
from mu_llama.engine.protocol import Segment
from mu_llama.engine.torch.llama import MuLlama
from mu_llama.model.retrieval import Blend

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (heads, T, head width) of one row or (B, heads, T, head width) of several."""


class TorchEngine:
    """Runs a model of torch modules.

    Args:
        model: in eval mode, on its devices.
    """

    chunk_tokens = 2**30
    """Prompts are read at once, as the published system does."""

    def __init__(self, model: MuLlama) -> None:
        self.model = model

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer together; audio tokens aren't counted."""
        return self.model.context_length

    @property
    def num_audio_tokens(self) -> int:
        """Audio tokens before a prompt; 0 where the audio conditions layers."""
        return self.model.num_audio_tokens

    @torch.inference_mode()
    def condition(self, features: FloatArray, *, blend: Blend | None = None) -> FloatArray:
        """Make a track's conditioning; see `Engine.condition`."""
        conditioning = self.model.condition(torch.from_numpy(features)[None], blend=blend)
        return conditioning[0].float().numpy(force=True)

    def new_rows(self, capacity: int) -> TorchRows:
        """Make a table for rows."""
        return TorchRows(self.model, capacity)


class TorchRows:
    """Rows over transformers' caches; see `engine.protocol.Rows`.

    A row has a cache of its own while its prompt is read. The rows of the last step share one, padded on the left.
    """

    def __init__(self, model: MuLlama, capacity: int) -> None:
        self._model = model
        self.capacity = capacity
        self._own: dict[int, DynamicCache] = {}
        self._conditioning: dict[int, Tensor | None] = {}
        self._lengths: dict[int, int] = {}
        self._batch: list[int] = []
        self._shared: DynamicCache = model.new_cache()
        self._mask: Tensor | None = None

    def join(self, conditioning: FloatArray | None) -> int:
        """Begin a row."""
        row = next(number for number in range(self.capacity) if number not in self._lengths)
        dtype, device = self._model.dtype, self._model.device
        self._conditioning[row] = None if conditioning is None else torch.from_numpy(conditioning).to(device, dtype)
        self._own[row], self._lengths[row] = self._model.new_cache(), 0
        return row

    def length(self, row: int) -> int:
        """Positions that a row has."""
        return self._lengths[row]

    def leave(self, row: int) -> None:
        """End a row."""
        if row in self._batch:
            self._keep([index for index, other in enumerate(self._batch) if other != row])
        self._own.pop(row, None)
        del self._conditioning[row], self._lengths[row]

    @torch.inference_mode()
    def read(self, row: int, ids: Sequence[int]) -> FloatArray:
        """Read text behind what a row has; returns the logits (V,) after the last token."""
        cache, conditioning = self._alone(row), self._conditioning[row]
        logits = self._model(
            torch.tensor([list(ids)], device=self._model.device),
            conditioning=None if conditioning is None else conditioning[None],
            past_key_values=cache,
            logits_to_keep=1,
        )
        self._lengths[row] = cache.get_seq_length()
        return logits[0, -1].numpy(force=True)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def step(self, tokens: Mapping[int, int]) -> dict[int, FloatArray]:
        """Read one token in each of several rows at once; returns the logits (V,) of each."""
        self._gather(tokens)
        device, rows = self._model.device, self._batch
        positions = None
        if self._mask is not None:
            self._mask = pad(self._mask, (0, 1), value=1)
            positions = torch.tensor([[self._lengths[row]] for row in rows], device=device)
        logits = self._model(
            torch.tensor([[tokens[row]] for row in rows], device=device),
            conditioning=self._terms(rows),
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._shared,
            logits_to_keep=1,
        )[:, -1].numpy(force=True)
        for row in rows:
            self._lengths[row] += 1
        return dict(zip(rows, logits, strict=True))

    def _terms(self, rows: Sequence[int]) -> Tensor | None:
        """Terms of layers (B, Q, A), added at each token, zeros for rows of text alone; audio tokens have been read."""
        terms = [self._conditioning[row] for row in rows]
        given = next((term for term in terms if term is not None), None)
        if given is None or self._model.num_audio_tokens:
            return None
        return torch.stack([torch.zeros_like(given) if term is None else term for term in terms])

    def take(self, row: int, start: int, stop: int) -> Segment:
        """Copy the keys and values of positions."""
        return [
            (layer.keys[0, :, start:stop].clone(), layer.values[0, :, start:stop].clone())
            for layer in self._alone(row).layers
        ]

    def put(self, row: int, segments: Sequence[Segment]) -> None:
        """Begin a row with copies of segments."""
        joined: list[Layers] = list(segments)
        for layer, pairs in enumerate(zip(*joined, strict=True)):
            keys, values = (torch.cat([pair[which] for pair in pairs], dim=1)[None] for which in (0, 1))
            self._own[row].update(keys, values, layer)
        self._lengths[row] = self._own[row].get_seq_length()

    def _alone(self, row: int) -> DynamicCache:
        """A row's own cache, out of the shared one where it is there."""
        if row in self._batch:
            index, length = self._batch.index(row), self._lengths[row]
            pairs = [(layer.keys[index, None], layer.values[index, None]) for layer in self._shared.layers]
            self._own[row] = self._cache_of([(keys[:, :, -length:], values[:, :, -length:]) for keys, values in pairs])
            self._keep([other for other in range(len(self._batch)) if other != index])
        return self._own[row]

    def _cache_of(self, layers: Layers) -> DynamicCache:
        cache = self._model.new_cache()
        for number, (keys, values) in enumerate(layers):
            cache.update(keys.contiguous(), values.contiguous(), number)
        return cache

    def _gather(self, tokens: Mapping[int, int]) -> None:
        """Bring the caches of all rows of a step together, and of no others."""
        for row in [row for row in self._batch if row not in tokens]:
            self._alone(row)
        joining = [row for row in tokens if row not in self._batch]
        if not joining:
            return
        rows = [*self._batch, *joining]
        longest = max(self._lengths[row] for row in rows)
        caches = [*([self._shared] if self._batch else []), *(self._own.pop(row) for row in joining)]

        def together(layer: int, which: str) -> Tensor:
            parts = [getattr(cache.layers[layer], which) for cache in caches]
            parts = [part[:, :, -longest:] for part in parts]
            return torch.cat([pad(part, (0, 0, longest - part.shape[2], 0)) for part in parts])

        self._shared = self._cache_of(
            [(together(layer, "keys"), together(layer, "values")) for layer in range(len(caches[0].layers))]
        )
        self._batch = rows
        self._set_mask()

    def _keep(self, indices: list[int]) -> None:
        """Keep some rows of the shared cache."""
        self._batch = [self._batch[index] for index in indices]
        if not indices:
            self._shared, self._mask = self._model.new_cache(), None
            return
        longest = max(self._lengths[row] for row in self._batch)
        # On the CPU it selects from layers on any device.
        self._shared.batch_select_indices(torch.tensor(indices))
        if longest < self._shared.get_seq_length():
            self._shared = self._cache_of(
                [(layer.keys[:, :, -longest:], layer.values[:, :, -longest:]) for layer in self._shared.layers]
            )
        self._set_mask()

    def _set_mask(self) -> None:
        """Mask (B, T) of the positions that a row has; None where all are equally long."""
        lengths = [self._lengths[row] for row in self._batch]
        longest = max(lengths)
        self._mask = None
        if min(lengths) < longest:
            mask = [[0] * (longest - length) + [1] * length for length in lengths]
            self._mask = torch.tensor(mask, device=self._model.device)
