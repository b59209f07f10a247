"""Published checkpoints of several files, as the golden sets have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mu_llama.checkpoints.formats.encoder import read_encoder_folder
from mu_llama.checkpoints.formats.format import Companions
from mu_llama.checkpoints.formats.published import read_published_model
from mu_llama.checkpoints.load import read_llama
from mu_llama.checkpoints.spec import ModelSpec


def published_parts(paths: Sequence[Path], *, llama: Path, encoder: Path) -> ModelSpec:
    """Describe a published model: one checkpoint, or a base and the deltas that go on top of it."""
    return read_published_model(paths, Companions(llama, encoder, read_llama, read_encoder_folder, lambda _: None))
