"""Which engine runs a model: what was asked for, what the model is, what this machine has."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mu_llama.checkpoints.fit import check_parts
from mu_llama.checkpoints.formats.onnx_graph import graph_precision
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.devices import has_gpu
from mu_llama.engine.onnx.rotary import ROPE_TYPES, rope_type
from mu_llama.engine.protocol import SMALL_WIDTH, DeviceMap, Engine, Quantization
from mu_llama.errors import ConfigError
from mu_llama.progress import ProgressCallback, no_progress

EngineName = Literal["auto", "onnx", "torch"]
TORCH_EXTRA = "pip install 'mu-llama[torch]'"


@dataclass(frozen=True)
class EngineOptions:
    """How a model shall run, as in `load`."""

    engine: EngineName = "auto"
    """What runs it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N, mps."""
    dtype: str = "auto"
    """Of the LLaMA: auto, bf16, fp16, fp32."""
    quantize: Quantization | None = None
    """Width of the LLaMA's linear layers where they are quantized."""
    device_map: DeviceMap | None = None
    """To spread the LLaMA over several devices."""
    provider: str | None = None
    """Execution provider of onnxruntime; None for the CPU's."""

    def __post_init__(self) -> None:
        if self.engine not in get_args(EngineName):
            raise ConfigError(f"engine is {self.engine!r}; expected {', '.join(get_args(EngineName))}")
        if self.quantize not in (None, *get_args(Quantization)):
            raise ConfigError(f"quantize is {self.quantize!r}; expected {' or '.join(get_args(Quantization))}")


def open_engine(
    parts: ModelSpec,
    options: EngineOptions,
    *,
    home: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: ProgressCallback = no_progress,
) -> tuple[Callable[[], Engine], str]:
    """Choose an engine and check that the model fits it.

    Args:
        parts: the model.
        options: how it shall run.
        home: cache folder.
        report: called with one line when a slow step starts.
        progress: follows the loading.

    Returns:
        A function that reads the model into memory, and the name of its device.

    Raises:
        CheckpointError: if names or shapes of the weights don't fit together.
        ConfigError: if options contradict each other or need what isn't installed.
    """
    if parts.llama.graph is not None:
        return _open_graph(parts, options, parts.llama.graph), "cpu"
    warn_of_int4(parts, options.quantize)
    if choose_engine(parts, options) == "onnx":
        from mu_llama.engine.onnx.load import open_onnx_engine

        check_onnx(options)
        check_parts(parts)
        precision = options.quantize or ("fp32" if options.dtype == "fp32" else "int8")
        if options.quantize is None and options.dtype == "auto" and not is_small(parts):
            how = "--engine torch" if is_torch_installed() else TORCH_EXTRA
            report(f"on the onnx engine the LLaMA runs in int8; for the precision it was published in: {how}")
        provider = options.provider or "cpu"
        return lambda: open_onnx_engine(
            parts, precision=precision, provider=provider, home=home, report=report, progress=progress
        ), "cpu"
    if not is_torch_installed():
        raise ConfigError(f"the torch engine isn't installed; {TORCH_EXTRA}, or use --engine onnx")
    if options.provider is not None:
        raise ConfigError("--provider belongs to the onnx engine; leave it out, or add --engine onnx")
    from mu_llama.devices import choose_device, choose_dtype, use_chosen_threads
    from mu_llama.engine.torch.engine import TorchEngine
    from mu_llama.engine.torch.load import Placement, fill, prepare

    use_chosen_threads()
    device = choose_device(options.device)
    placement = Placement(
        device, choose_dtype(options.dtype, device), quantize=options.quantize, device_map=options.device_map
    )
    assembly = prepare(parts, placement)
    return lambda: TorchEngine(fill(assembly, progress=progress)), str(device)


def _open_graph(parts: ModelSpec, options: EngineOptions, graph: Path) -> Callable[[], Engine]:
    """Check a model whose LLaMA is an onnx graph, which runs one way only; see `open_engine`."""
    from mu_llama.engine.onnx.load import open_stored_graph

    precision = graph_precision(graph)
    named = {
        "--engine": (options.engine, ("auto", "onnx")),
        "--device": (options.device, ("auto", "cpu")),
        "--device-map": (options.device_map, (None,)),
        "--dtype": (options.dtype, ("auto", "fp32") if precision == "fp32" else ("auto",)),
        "--quantize": (options.quantize, (None, precision)),
    }
    wrong = [f"{name} {value}" for name, (value, fitting) in named.items() if value not in fitting]
    if wrong:
        raise ConfigError(
            f"{parts.source}: its LLaMA is an onnx graph in {precision}, which onnxruntime runs as it is; leave out "
            f"{', '.join(wrong)}, or give the model that it was converted from"
        )
    check_parts(parts)
    return lambda: open_stored_graph(parts, graph, provider=options.provider or "cpu")


def warn_of_int4(parts: ModelSpec, quantize: str | None) -> None:
    """Warn where a LLaMA is too small for 4 bits."""
    width = parts.llama.config.hidden_size
    if quantize == "int4" and width < SMALL_WIDTH:
        warnings.warn(f"int4 changes what a LLaMA as small as this one says (width {width}); use int8", stacklevel=3)


def choose_engine(parts: ModelSpec, options: EngineOptions) -> Literal["onnx", "torch"]:
    """Choose what runs a model.

    onnx runs small models and quantized ones on a CPU, and everything where torch isn't installed; torch what is named
    for it (a GPU, a dtype, a device map), models that aren't small in their own precision, and LLaMAs that onnx can't
    run. A small model runs on the CPU unless a GPU is named: importing torch takes longer than a few answers.
    """
    if options.engine != "auto":
        return options.engine
    if options.provider is not None:
        return "onnx"
    if options.device_map is not None or options.device not in ("auto", "cpu") or options.dtype in ("bf16", "fp16"):
        return "torch"
    if not is_torch_installed():
        return "onnx"
    if not is_small(parts) and options.device == "auto" and has_gpu():
        return "torch"
    can_rotate = rope_type(parts.llama.config) in ROPE_TYPES
    is_wanted = options.quantize is not None or (is_small(parts) and options.dtype == "auto")
    return "onnx" if is_wanted and can_rotate and parts.llama.files else "torch"


def is_torch_installed() -> bool:
    """Whether the torch engine can run: it needs transformers too."""
    return all(importlib.util.find_spec(library) is not None for library in ("torch", "transformers"))


def is_small(parts: ModelSpec) -> bool:
    """Whether a model is of the kind of `mini`: with audio tokens before the prompt of a small LLaMA."""
    return parts.adapter_config.num_audio_tokens > 0 and parts.llama.config.hidden_size < SMALL_WIDTH


def check_onnx(options: EngineOptions) -> None:
    """Refuse options that the onnx engine doesn't have.

    Raises:
        ConfigError: naming the option and what to do.
    """
    if options.device not in ("auto", "cpu"):
        raise ConfigError(f"--device {options.device} belongs to the torch engine; onnx has --provider")
    if options.device_map is not None:
        raise ConfigError("--device-map belongs to the torch engine; leave it out, or add --engine torch")
    if options.dtype not in ("auto", "fp32"):
        raise ConfigError(
            f"the onnx engine runs in fp32, int8 or int4, not {options.dtype}; leave out --dtype, or add --engine torch"
        )
    if options.dtype == "fp32" and options.quantize is not None:
        raise ConfigError(f"--dtype fp32 contradicts --quantize {options.quantize}; leave one out")
