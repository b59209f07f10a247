"""Opens a model as a `Listener`, and writes one as a folder or to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from mu_llama.audio.windows import WindowChoice, plan_by_name
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.convert import ConvertOptions, convert_to_folder
from mu_llama.checkpoints.formats.faiss import read_faiss_flat
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.encoders.cache import FeatureCache
from mu_llama.engine.protocol import DeviceMap, Quantization
from mu_llama.errors import ConfigError, renamed_keywords
from mu_llama.hub import is_hub_id, push
from mu_llama.inference.engines import EngineName, EngineOptions, is_small
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.inference.listener import Listener
from mu_llama.inference.open_model import open_model
from mu_llama.model.retrieval import BlendOptions, NeighbourBlend
from mu_llama.progress import ProgressCallback, no_progress


@renamed_keywords(quantise="quantize", track="progress")
def load(
    model: str | PathLike[str] = "mini",
    *,
    llama: str | PathLike[str] | None = None,
    encoder: str | PathLike[str] | None = None,
    knn_index: str | PathLike[str] | None = None,
    blend: BlendOptions | None = None,
    window: WindowChoice = "auto",
    engine: EngineName = "auto",
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantization | None = None,
    device_map: DeviceMap | None = None,
    provider: str | None = None,
    use_cache: bool = True,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
) -> Listener:
    """Load a model: names, shapes and settings are checked now, weights are read after the first track is encoded.

    Args:
        model: `mini` (the embedded default), a mu-llama model folder, a published checkpoint, a folder tree that
            holds one, or a hub id.
        llama: Meta, Hugging Face or GGUF LLaMA, or a hub id, beside a published checkpoint; params.json is enough
            where the checkpoint holds the LLaMA.
        encoder: MERT folder or hub id beside a published checkpoint that holds none.
        knn_index: faiss file of vectors to blend into each track's own.
        blend: how far; needs `knn_index`.
        window: which seconds are encoded: `full` (all), `published` (the first minute), `auto` (the model's own).
        engine: what runs the LLaMA: `onnx` (onnxruntime, on the CPU), `torch`, or `auto`, onnx for small and
            quantized models on a CPU and where torch isn't installed, else torch.
        device: auto, cpu, cuda, cuda:N, mps.
        dtype: of the LLaMA: auto, bf16, fp16, fp32.
        quantize: `int8` or `int4` to store the LLaMA's linear layers in so many bits (on the torch engine the adapter's
            in 8), and the encoder in memory only while it runs. int4 on a GPU needs the extra `quantize`.
        device_map: `auto` to spread the LLaMA over all GPUs, or a table of modules and devices; needs the extra
            `multi-gpu`.
        provider: execution provider of onnxruntime: cpu, cuda, coreml or directml; None for cpu.
        use_cache: store features on disk, so that a track is encoded once.
        report: called with one line when a slow step starts (fetching, converting).
        progress: called with the number of bytes of weights loaded.

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if its files are damaged or don't fit together.
        ConfigError: if settings contradict each other.

    Example:
        listener = load("mini")
        listener.ask("song.ogg", "Is there singing?").text
    """
    plan = plan_by_name(window)
    if (knn_index is None) != (blend is None):
        raise ConfigError("knn_index and blend belong together; give both or neither")
    options = EngineOptions(engine, device, dtype, quantize, device_map, provider)
    opened = open_model(
        model, llama=llama, encoder=encoder, options=options, home=home_folder(), report=report, progress=progress
    )
    cache = FeatureCache(home_folder() / "features") if use_cache else None
    is_narrow = quantize is not None or (opened.parts.llama.graph is not None and not is_small(opened.parts))
    extractor = FeatureExtractor(opened.make_encoder, plan=plan or opened.plan, cache=cache, keep_encoder=not is_narrow)
    neighbours = None
    if knn_index is not None and blend is not None:
        neighbours = NeighbourBlend(read_faiss_flat(Path(knn_index)), blend)
    return Listener(opened, extractor=extractor, blend=neighbours)


def save_model(
    parts: ModelSpec, folder: str | PathLike[str], *, options: ConvertOptions, progress: ProgressCallback = no_progress
) -> None:
    """Write a model as one folder; see `Listener.save_pretrained`."""
    convert_to_folder(parts, Path(folder), options, progress=progress)


def push_model(parts: ModelSpec, hub_id: str, *, private: bool, options: ConvertOptions) -> str:
    """Upload a model to the hub; see `Listener.push_to_hub`."""
    if not is_hub_id(hub_id):
        raise ConfigError(f"hub id is {hub_id!r}; expected owner/name, e.g. mu-llama/my-model")
    with tempfile.TemporaryDirectory(prefix="mu-llama-push-") as scratch:
        folder = Path(scratch) / hub_id.rpartition("/")[2]
        save_model(parts, folder, options=options)
        return push(folder, hub_id, private=private, message=f"Upload {parts.name} with mu-llama")
