"""A model that is ready to answer: its parts, its tokenizer, and its weights, which are read on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path

from mu_llama.audio.windows import PLANS, WindowPlan
from mu_llama.checkpoints.formats.encoder import make_encoder
from mu_llama.checkpoints.load import find_parts, open_tokenizer
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.devices import LoadedProcess
from mu_llama.encoders.protocol import Encoder
from mu_llama.engine.protocol import Engine
from mu_llama.engine.scheduler import Scheduler
from mu_llama.hub import name_or_path
from mu_llama.inference.engines import EngineOptions, open_engine
from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class OpenedModel:
    """Everything that answers need, each part still exchangeable."""

    parts: ModelSpec
    """What it was made of, still on disk."""
    tokenizer: Tokenizer
    """Of the LLaMA."""
    make_engine: Callable[[], Engine]
    """Reads adapter and LLaMA into memory."""
    make_encoder: Callable[[], Encoder]
    """Builds the audio encoder; called when a track has to be encoded."""
    process: LoadedProcess = field(default_factory=lambda: LoadedProcess("cpu"))
    """Where it was opened."""
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def engine(self) -> Engine:
        """What runs adapter and LLaMA; made on first use, so after the first track is encoded."""
        return self.scheduler.engine

    @property
    def scheduler(self) -> Scheduler:
        """Runs the rows of all questions that are asked at the same time."""
        self.process.check()
        with self._reading:
            return self._scheduler

    @cached_property
    def _scheduler(self) -> Scheduler:
        return Scheduler(self.make_engine())

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer together; audio tokens aren't counted."""
        num_audio_tokens = self.parts.adapter_config.num_audio_tokens
        return int(self.parts.llama.config.max_position_embeddings) - num_audio_tokens

    @property
    def reads_segments(self) -> bool:
        """Whether what stands before a question is read in segments, which are cached.

        Only behind audio tokens: other prompts are read at once, as the published system does.
        """
        return self.parts.adapter_config.num_audio_tokens > 0

    @property
    def plan(self) -> WindowPlan:
        """Which seconds of a track it encodes by default."""
        return PLANS[self.parts.window]


def open_model(
    model: str | PathLike[str],
    *,
    llama: str | PathLike[str] | None = None,
    encoder: str | PathLike[str] | None = None,
    options: EngineOptions,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
) -> OpenedModel:
    """Open a model by name or path.

    Args:
        model: see `find_parts`.
        llama: see `find_parts`.
        encoder: see `find_parts`.
        options: what runs it, and how.
        home: cache folder, for the embedded model's LLaMA and graphs.
        report: called with one line when a slow step starts.
        progress: follows the loading.

    Raises:
        ModelNotFoundError: if nothing of that name is there.
        CheckpointError: if the files don't fit together.
        ConfigError: if an argument is missing or does not apply.
    """
    parts = find_parts(
        name_or_path(model, role="model"),
        llama=None if llama is None else name_or_path(llama, role="llama"),
        encoder=None if encoder is None else name_or_path(encoder, role="encoder"),
        home=home,
        report=report,
    )
    make_engine, device = open_engine(parts, options, home=home, report=report, progress=progress)
    return OpenedModel(
        parts=parts,
        tokenizer=open_tokenizer(parts.llama, parts.template),
        make_engine=make_engine,
        make_encoder=lambda: make_encoder(parts, device=device),
        process=LoadedProcess(device),
    )
