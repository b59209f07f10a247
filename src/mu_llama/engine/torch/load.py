"""Build a torch model from a ModelSpec: made on the meta device, then filled tensor by tensor where each will live."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mu_llama.arrays import numpy_dtype, to_torch
from mu_llama.checkpoints.fit import check_fit, check_parts
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.lora import VALUE_LORA, adapter_dtype, merged_adapter, merged_llama
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.engine.protocol import DeviceMap, Quantization
from mu_llama.engine.torch.device_map import attach_hooks, device_of, plan_devices
from mu_llama.engine.torch.kernels import fast_linear
from mu_llama.engine.torch.llama import MuLlama, build_mu_llama
from mu_llama.engine.torch.quantize import quantize_linear
from mu_llama.progress import ProgressCallback, no_progress


@dataclass(frozen=True)
class Placement:
    """Where a model runs and how wide its numbers are."""

    device: torch.device
    """Device of the adapter and, without a map, of everything."""
    dtype: torch.dtype
    """Of the LLaMA. The adapter computes in float32; in half precision its big matrices stay in that."""
    quantize: Quantization | None = None
    """Width of the LLaMA's linear layers where they are quantized."""
    device_map: DeviceMap | None = None
    """`auto`, or which layer goes to which device, to spread the LLaMA over several."""


@dataclass(frozen=True)
class Assembly:
    """A model whose parts are known to fit, still on the meta device and on disk."""

    model: MuLlama
    """Modules without numbers."""
    llama: Mapping[str, LazyTensor]
    """What fills the LLaMA."""
    adapter: Mapping[str, LazyTensor]
    """What fills the rest."""
    placement: Placement
    """Where it goes."""


def prepare(parts: ModelSpec, placement: Placement) -> Assembly:
    """Put names and shapes together; no weight is read.

    Raises:
        CheckpointError: if names or shapes don't fit.
    """
    check_parts(parts)
    dtype = numpy_dtype(placement.dtype)
    config, llama = merged_llama(parts.llama, parts.tuning, dtype=dtype, source=parts.source)
    adapter = {name: adapter_dtype(name, value, dtype) for name, value in merged_adapter(parts).items()}
    rank = adapter[VALUE_LORA[0]].shape[1] if VALUE_LORA[0] in adapter else None
    model = build_mu_llama(config, parts.adapter_config, dtype=placement.dtype, value_lora_rank=rank)
    return Assembly(model, llama, adapter, placement)


def fill(assembly: Assembly, *, progress: ProgressCallback = no_progress) -> MuLlama:
    """Read a model into memory, ready to run: LoRA merged, never two copies of it.

    Raises:
        CheckpointError: if a file ends too early or can't be read.
        ConfigError: if a library that the placement needs isn't installed.
    """
    model, placement = assembly.model, assembly.placement
    devices = {"": placement.device}
    if placement.device_map is not None:
        devices = plan_devices(model.llama, placement.device_map, quantize=placement.quantize)
    tensors = {**{f"llama.{name}": value for name, value in assembly.llama.items()}, **assembly.adapter}
    advance = progress("loading", sum(value.size_bytes for value in tensors.values()))
    with _malloc_for_loading():
        for module, names in _by_module(tensors).items():
            inner = module.removeprefix("llama.")
            device = placement.device if inner == module else device_of(devices, inner)
            for name in names:
                put(model, name, to_torch(tensors[name].read()).to(device))
                advance(tensors[name].size_bytes)
            _replace_linear(model, module, placement)
    finish(model)
    if placement.device_map is not None:
        attach_hooks(model.llama, devices)
        return model
    return model.to(placement.device)  # the rotary table; everything else is there


def assemble(parts: ModelSpec, placement: Placement, *, progress: ProgressCallback = no_progress) -> MuLlama:
    """Prepare and fill at once; errors as of both."""
    return fill(prepare(parts, placement), progress=progress)


def _by_module(tensors: Mapping[str, LazyTensor]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in tensors:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    return modules


def _replace_linear(model: nn.Module, name: str, placement: Placement) -> None:
    """Exchange a linear layer that has just been filled for its quantized or fast kind.

    So only one layer is ever in memory unquantized. The output embedding stays as it is: answers hang on it.
    """
    linear = model.get_submodule(name)
    if not isinstance(linear, nn.Linear):
        return
    replaced: nn.Module = linear
    if placement.quantize is not None and name.startswith("llama.model.layers."):
        replaced = quantize_linear(linear, placement.quantize)
    elif placement.quantize is not None and name.startswith("adapter.blocks."):
        # The track's only way in: never in fewer than 8 bits.
        replaced = quantize_linear(linear, "int8")
    elif name.startswith("llama.") and linear.weight.device.type == "cpu" and linear.weight.dtype == torch.bfloat16:
        replaced = fast_linear(linear)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, replaced)


def check_modules(model: nn.Module, tensors: Mapping[str, LazyTensor], *, source: object) -> None:
    """Check that tensors fill a model's modules; see `check_fit`."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_fit(expected, tensors, optional=_tied_names(model), source=source)


def put(model: nn.Module, name: str, value: Tensor) -> None:
    """Give a parameter or buffer its value, on whatever device the value is."""
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if leaf in module._parameters:
        value = nn.Parameter(value, requires_grad=False)
    setattr(module, leaf, value)


def finish(model: nn.Module) -> None:
    """Tie what is tied, compute what isn't stored, freeze; nothing may be left on the meta device."""
    module: Any
    for module in model.modules():
        if hasattr(module, "tie_weights"):
            module.tie_weights()
        # Rotary tables are computed, not stored: made again on a real device.
        if type(module).__name__.endswith("RotaryEmbedding"):
            fresh = type(module)(config=module.config)
            for name, buffer in fresh.named_buffers():
                module.register_buffer(name, buffer, persistent=False)
    model.requires_grad_(False)
    model.eval()
    left = [name for name, value in (*model.named_parameters(), *model.named_buffers()) if value.device.type == "meta"]
    assert not left, f"left on the meta device: {left[:3]}"


def _tied_names(model: nn.Module) -> set[str]:
    return {
        f"{name}.lm_head.weight" if name else "lm_head.weight"
        for name, module in model.named_modules()
        if getattr(getattr(module, "config", None), "tie_word_embeddings", False) and hasattr(module, "lm_head")
    }


_MMAP_THRESHOLD = -3
# Above the pieces that weights are converted in, below the smallest big weight.
_WHILE_READING_BYTES = 12_000_000
_AFTERWARDS_BYTES = 32_000_000


@contextmanager
def _malloc_for_loading() -> Iterator[None]:
    """Let glibc give big blocks back to the system when they are freed, and trim what it holds at the end.

    Otherwise weights that stay are scattered among temporaries that go: up to 2 GB more for an int8 model of 7 GB.
    Does nothing where the C library isn't glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _WHILE_READING_BYTES)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _AFTERWARDS_BYTES)
        libc.malloc_trim(0)
