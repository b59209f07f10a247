"""A LLaMA on onnxruntime: a graph folder opened, and the rows that it reads and steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu_llama.checkpoints.formats.onnx_graph import GRAPH_FILE, GRAPH_WEIGHTS_FILE
from mu_llama.engine.onnx.conditioning import Conditioner
from mu_llama.engine.onnx.description import EMBEDDING, GraphDescription
from mu_llama.engine.onnx.rows import OnnxRows
from mu_llama.engine.onnx.session import open_session
from mu_llama.engine.onnx.weights import Weights, stored_head_width, widen
from mu_llama.errors import CheckpointError
from mu_llama.model.retrieval import Blend


class OnnxEngine:
    """Runs the graph of a folder.

    Args:
        folder: as `build_graph` wrote it.
        num_audio_tokens: N that stand before every prompt of a track; 0 where the audio conditions layers.
        num_threads: that compute one operator together; 0 is one for each physical core.
        provider: of onnxruntime, see `session.PROVIDERS`.
        make_conditioner: makes what turns features into conditioning, when it is first needed.

    Raises:
        CheckpointError: if the folder is damaged.
        ConfigError: if onnxruntime lacks the provider.
    """

    chunk_tokens = 64
    """Tokens of a prompt that are read between two steps of other rows."""

    def __init__(
        self,
        folder: Path,
        *,
        num_audio_tokens: int = 0,
        num_threads: int = 0,
        provider: str = "cpu",
        make_conditioner: Callable[[OnnxEngine], Conditioner] | None = None,
    ) -> None:
        self.description = GraphDescription.read(folder)
        self._make_conditioner = make_conditioner
        self.num_audio_tokens = num_audio_tokens
        path = folder / GRAPH_WEIGHTS_FILE
        try:
            self._weights = Weights(path, self.description.table)
            self._embedding = self._weights[EMBEDDING]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: can't be read ({error}); build the graph again") from error
        self._open_session = partial(open_session, folder / GRAPH_FILE, provider=provider)
        self._session = self._open_session(num_threads=num_threads)
        self._process_id = os.getpid()

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together; audio tokens aren't counted."""
        return self.description.max_positions - self.num_audio_tokens

    def embed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Look up the embeddings of token ids: (T, H).

        Raises:
            CheckpointError: if an id is none of this model's, as those of another model's tokenizer may be.
        """
        index = np.asarray(ids, np.int64)
        if index.size and not 0 <= index.min() <= index.max() < len(self._embedding):
            raise CheckpointError(
                f"token ids are {index.min()} to {index.max()}; expected 0 to {len(self._embedding) - 1}: "
                "the tokenizer is another model's"
            )
        return widen(self._embedding[index])

    @cached_property
    def _conditioner(self) -> Conditioner:
        assert self._make_conditioner is not None, "an engine that was opened for a model has one"
        return self._make_conditioner(self)

    def condition(self, features: NDArray[np.float32], *, blend: Blend | None = None) -> NDArray[np.float32]:
        """Make a track's conditioning; see `Engine.condition`."""
        return self._conditioner.condition(features, blend=blend)

    def new_rows(self, capacity: int) -> OnnxRows:
        """Make an empty batch for at most `capacity` rows."""
        if self._process_id != os.getpid():  # the session's threads aren't there in a forked process
            self._session, self._process_id = self._open_session(num_threads=1), os.getpid()
        return OnnxRows(
            self._session, self.description, self.embed, capacity=capacity, num_audio_tokens=self.num_audio_tokens
        )

    def value_projection(self, index: int) -> NDArray[np.float32]:
        """The value projection (KV heads * head width, H) of the conditioned layer `index` of Q, as it is stored."""
        sizes, options = self.description, self.description.options
        layer = sizes.num_layers - options.num_conditioned_layers + index
        stored = stored_head_width(sizes.head_width)
        end = (sizes.num_heads + 2 * sizes.num_key_value_heads) * stored
        rows = slice(end - sizes.num_key_value_heads * stored, end)
        values = self._weights.linear_rows(
            f"qkv_{layer}", rows, block_format=options.block_format(), width=sizes.hidden_size
        )
        halves = values.reshape(
            -1, stored // 2, sizes.hidden_size
        )  # (KV heads * width, H) -> (2 KV heads, width / 2, H)
        return np.ascontiguousarray(halves[:, : sizes.head_width // 2]).reshape(-1, sizes.hidden_size)

    def logits(self, ids: Iterable[int], *, conditioning: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Logits (T, V) of every position of a text, for tests and scoring."""
        tokens = list(ids)
        rows = self.new_rows(1)
        return rows.read_all(rows.join(conditioning), tokens)
