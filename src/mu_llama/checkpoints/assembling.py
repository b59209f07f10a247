"""Build a model of its parts: made on the meta device, then filled tensor by tensor where each will live."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mu_llama.checkpoints.device_map import DeviceMap, attach_hooks, device_of, plan_devices
from mu_llama.checkpoints.heap import without_holes
from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.lora import LORA_DOWN, LORA_UP, merged_llama
from mu_llama.checkpoints.placing import check_fit, finish, put
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.errors import CheckpointError
from mu_llama.model.linears import fast_linear
from mu_llama.model.mu_llama import MuLlama, build_mu_llama
from mu_llama.model.quantization import Quantization, quantize_linear
from mu_llama.progress import ProgressCallback, no_progress

_VALUE_LORA = ("conditioner.value_lora_A", "conditioner.value_lora_B")
# Rounding to 4 bits moves the logits of smaller ones (python -m benchmarks.quantized).
_LEAST_INT4_WIDTH = 2048
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Placement:
    """Where a model runs and how wide its numbers are."""

    device: torch.device
    """Device of the adapter and, without a map, of everything."""
    dtype: torch.dtype
    """Of the LLaMA. The adapter computes in float32; in half precision its big matrices are kept in that."""
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
    dtype = placement.dtype
    config, llama = merged_llama(parts.llama, parts.tuning, dtype=dtype, source=parts.source)
    adapter = {name: adapter_dtype(name, value, dtype) for name, value in adapter_tensors(parts).items()}
    rank = adapter[_VALUE_LORA[0]].shape[1] if _VALUE_LORA[0] in adapter else None
    model = build_mu_llama(config, parts.adapter_config, dtype=dtype, value_lora_rank=rank)
    check_fit(model.llama, llama, source=parts.source if parts.tuning else parts.llama.source)
    check_fit(model, {**{f"llama.{name}": value for name, value in llama.items()}, **adapter}, source=parts.source)
    if placement.quantize == "int4" and config.hidden_size < _LEAST_INT4_WIDTH:
        warnings.warn(
            f"int4 changes what a LLaMA as small as this one says (width {config.hidden_size}); use int8",
            stacklevel=2,
        )
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
    with without_holes():
        for module, names in _by_module(tensors).items():
            inner = module.removeprefix("llama.")
            device = placement.device if inner == module else device_of(devices, inner)
            for name in names:
                put(model, name, tensors[name].read().to(device))
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


def adapter_tensors(parts: ModelSpec) -> dict[str, LazyTensor]:
    """The adapter's tensors, with the part of the value projections that a merge adds and the audio mustn't see."""
    tensors = dict(parts.adapter)
    for name, stored in zip(_VALUE_LORA, _value_lora(parts), strict=False):
        if name in tensors:
            raise CheckpointError(
                f"{parts.source}: a LoRA on value projections that hold a merged one already; "
                "expected an unmerged LLaMA: convert without --merge"
            )
        tensors[name] = stored
    return tensors


def _value_lora(parts: ModelSpec) -> list[LazyTensor]:
    """Stack the LoRA of the conditioned value projections to (Q, rank, H) and (Q, rows, rank), or give nothing."""
    num_layers = parts.llama.config.num_hidden_layers
    layers = range(num_layers - parts.adapter_config.num_conditioned_layers, num_layers)
    modules = [f"model.layers.{layer}.self_attn.v_proj" for layer in layers]
    pairs = [(parts.tuning.get(module + LORA_DOWN), parts.tuning.get(module + LORA_UP)) for module in modules]
    present = [(down, up) for down, up in pairs if down is not None and up is not None]
    if not present:
        return []
    rank = max(down.shape[0] for down, _ in present)
    hidden, rows = present[0][0].shape[1], present[0][1].shape[0]

    def load(half: int) -> Tensor:
        stacked = torch.zeros(len(pairs), *((rank, hidden) if half == 0 else (rows, rank)))
        for index, pair in enumerate(pairs):
            stored = pair[half]
            if stored is not None:
                value = stored.read().float()
                stacked[index, : value.shape[0], : value.shape[1]] = value
        return stacked

    return [
        LazyTensor((len(pairs), rank, hidden), torch.float32, lambda: load(0)),
        LazyTensor((len(pairs), rows, rank), torch.float32, lambda: load(1)),
    ]


def adapter_dtype(name: str, value: LazyTensor, dtype: torch.dtype) -> LazyTensor:
    """Keep the bridge's matrices narrow beside a narrow LLaMA; everything else is float32."""
    if name.startswith(("adapter.blocks.", "adapter.projection.")) and len(value.shape) == 2 and dtype in _HALF:
        return value if value.dtype in _HALF else value.to(dtype)
    return value.to(torch.float32)


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
