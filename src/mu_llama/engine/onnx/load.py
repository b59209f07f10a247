"""Build the graph of a ModelSpec where it isn't cached, and open it with what makes its conditioning."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mu_llama.arrays import FLOAT32
from mu_llama.checkpoints.lora import merged_adapter, merged_llama
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.devices import compute_threads
from mu_llama.engine.onnx.conditioning import Conditioner
from mu_llama.engine.onnx.description import GraphDescription, GraphOptions, Precision
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.onnx.store import damage_of, provide_graph
from mu_llama.engine.protocol import SMALL_WIDTH
from mu_llama.errors import CheckpointError
from mu_llama.files import sha256_of, write_whole
from mu_llama.progress import ProgressCallback, no_progress

GRAPHS_FOLDER = "graphs"
_HASHES_FILE = "hashes.json"
_SLOW_BYTES = 1 << 30
"""Files above it take seconds to be hashed."""


def graph_options(parts: ModelSpec, precision: Precision) -> GraphOptions:
    """How the graph of a model is built: the smallest blocks that cost little speed (docs/experiments/engine.md).

    Blocks of 4 bits have zero points in small LLaMAs alone: in wide ones products with zero points take 1.5 times as
    long, and the weights' error is only 6% smaller.
    """
    return GraphOptions(
        precision,
        block_size=16 if precision == "int8" else 32,
        symmetric=precision != "int4" or parts.llama.config.hidden_size >= SMALL_WIDTH,
        num_conditioned_layers=parts.adapter_config.num_conditioned_layers,
    )


def open_onnx_engine(
    parts: ModelSpec,
    *,
    precision: Precision,
    provider: str = "cpu",
    home: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
) -> OnnxEngine:
    """Open a model's graph, built first where the cache doesn't hold it.

    Args:
        parts: the model.
        precision: of the LLaMA's linear layers.
        provider: of onnxruntime, see `session.PROVIDERS`.
        home: cache folder.
        report: called with one line when a slow step starts.
        progress: follows the building.

    Raises:
        CheckpointError: if the weights are damaged or don't fit together.
        ConfigError: if onnxruntime can't run such a LLaMA, or lacks the provider.
        MuLlamaError: if the disk is full.
    """
    options, cache = graph_options(parts, precision), home / GRAPHS_FOLDER

    def build(folder: Path) -> None:
        from mu_llama.engine.onnx.graph import build_graph  # brings onnx, which takes 0.3 s to import

        report(f"building the {precision} graph of {parts.name} (once)")
        config, tensors = merged_llama(parts.llama, parts.tuning, dtype=FLOAT32, source=parts.source)
        build_graph(folder, config, tensors, options=options, progress=progress)

    identity = {"files": _contents({*parts.files, *parts.llama.files}, cache, report)}
    folder = provide_graph(cache, identity, options, build, report=report)
    return _open_folder(parts, folder, provider=provider)


def open_stored_graph(parts: ModelSpec, folder: Path, *, provider: str = "cpu") -> OnnxEngine:
    """Open the graph that a model folder brings, where it is.

    Args:
        parts: the model.
        folder: of the graph.
        provider: of onnxruntime, see `session.PROVIDERS`.

    Raises:
        CheckpointError: if it is damaged, or built of a LLaMA of other sizes.
        ConfigError: if onnxruntime lacks the provider.
    """
    damage = damage_of(folder)
    if damage is not None:
        raise CheckpointError(f"{folder}: a damaged onnx graph ({damage}); copy or convert the model again")
    built, config = GraphDescription.read(folder), parts.llama.config
    pairs = {
        "vocab_size": (built.vocab_size, config.vocab_size),
        "hidden_size": (built.hidden_size, config.hidden_size),
        "layers": (built.num_layers, config.num_hidden_layers),
        "heads": (built.num_heads, config.num_attention_heads),
        "key value heads": (built.num_key_value_heads, config.num_key_value_heads),
        "head width": (built.head_width, config.head_dim),
        "conditioned layers": (built.options.num_conditioned_layers, parts.adapter_config.num_conditioned_layers),
    }
    misfits = [f"{name} {came} (expected {expected})" for name, (came, expected) in pairs.items() if came != expected]
    if misfits:
        raise CheckpointError(f"{folder}: the onnx graph of another model: {', '.join(misfits)}; convert it again")
    return _open_folder(parts, folder, provider=provider)


def _open_folder(parts: ModelSpec, folder: Path, *, provider: str) -> OnnxEngine:
    return OnnxEngine(
        folder,
        num_audio_tokens=parts.adapter_config.num_audio_tokens,
        num_threads=compute_threads(),
        provider=provider,
        make_conditioner=lambda engine: Conditioner(
            parts.adapter_config,
            merged_adapter(parts),
            value_projection=engine.value_projection,
            head_width=parts.llama.config.head_dim,
        ),
    )


def _contents(paths: Iterable[Path], cache: Path, report: Callable[[str], None]) -> list[str]:
    """SHA-256 of each file; remembered in the cache, for as long as its size and time stay the same."""
    memory = cache / _HASHES_FILE
    known: dict[str, list[object]] = {}
    with suppress(OSError, ValueError, TypeError, AttributeError):  # damaged: written anew
        entries = json.loads(memory.read_text(encoding="utf-8")).items()
        known = {name: [size_bytes, time_ns, digest] for name, (size_bytes, time_ns, digest) in entries}
    hashes, is_new = [], False
    for path in sorted(paths):
        status = path.stat()
        state = [status.st_size, status.st_mtime_ns]
        name = os.fspath(path.resolve())
        if known.get(name, [])[:2] != state:
            if status.st_size > _SLOW_BYTES:
                report(f"computing the checksum of {path} (once)")
            known[name], is_new = [*state, sha256_of(path)], True
        hashes.append(str(known[name][2]))
    if is_new:
        with suppress(OSError):  # computed again next time
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_whole(memory, [json.dumps(known)])
    return hashes
