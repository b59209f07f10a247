"""Build a model of its parts: made on the meta device, then filled tensor by tensor where each will live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mu_llama.checkpoints.dispatch import DeviceMap, attach_hooks, device_of, plan_devices
from mu_llama.checkpoints.merging import LORA_DOWN, LORA_UP, merged_llama
from mu_llama.checkpoints.parts import ModelParts
from mu_llama.checkpoints.placing import check_fit, finish, put
from mu_llama.checkpoints.stored import StoredTensor
from mu_llama.errors import CheckpointError
from mu_llama.model.mu_llama import MuLlama, build_mu_llama
from mu_llama.model.quantisation import quantise_linear
from mu_llama.progress import Track, silent

Quantisation = Literal["int8", "int4"]
_VALUE_LORA = ("conditioner.value_lora_A", "conditioner.value_lora_B")
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Placement:
    """Where a model runs and how wide its numbers are."""

    device: torch.device
    """Device of the adapter and, without a map, of everything."""
    dtype: torch.dtype
    """Of the LLaMA. The adapter computes in float32; in half precision its big matrices are kept in that."""
    quantise: Quantisation | None = None
    """Width of the LLaMA's linear layers where they are quantised."""
    device_map: DeviceMap | None = None
    """`auto`, or which layer goes to which device, to spread the LLaMA over several."""


def assemble(parts: ModelParts, placement: Placement, *, track: Track = silent) -> MuLlama:
    """Read a model into memory, ready to run: LoRA merged, never two copies of it.

    Args:
        parts: what it is made of.
        placement: where it goes.
        track: follows the loading.

    Raises:
        CheckpointError: if names or shapes don't fit; nothing is read before that is known.
    """
    dtype = placement.dtype
    config, llama = merged_llama(parts.llama, parts.tuning, dtype=dtype, source=parts.source)
    adapter = {name: adapter_dtype(name, value, dtype) for name, value in adapter_tensors(parts).items()}
    rank = adapter[_VALUE_LORA[0]].shape[1] if _VALUE_LORA[0] in adapter else None
    model = build_mu_llama(config, parts.adapter_config, dtype=dtype, value_lora_rank=rank)
    check_fit(model.llama, llama, source=parts.source if parts.tuning else parts.llama.source)
    check_fit(model, {**{f"llama.{name}": value for name, value in llama.items()}, **adapter}, source=parts.source)
    devices = {"": placement.device}
    if placement.device_map is not None:
        devices = plan_devices(model.llama, placement.device_map, quantise=placement.quantise)
    advance = track("loading", sum(value.size_bytes for value in (*llama.values(), *adapter.values())))
    for name, stored in adapter.items():
        put(model, name, stored.read().to(placement.device))
        advance(stored.size_bytes)
    for module, names in _by_module(llama).items():
        for name in names:
            put(model.llama, name, llama[name].read().to(device_of(devices, module)))
            advance(llama[name].size_bytes)
        _replace_linear(model.llama, module, placement)
    finish(model)
    if placement.device_map is not None:
        attach_hooks(model.llama, devices)
        return model
    return model.to(placement.device)  # the rotary table; everything else is there


def adapter_tensors(parts: ModelParts) -> dict[str, StoredTensor]:
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


def _value_lora(parts: ModelParts) -> list[StoredTensor]:
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
        StoredTensor((len(pairs), rank, hidden), torch.float32, lambda: load(0)),
        StoredTensor((len(pairs), rows, rank), torch.float32, lambda: load(1)),
    ]


def adapter_dtype(name: str, value: StoredTensor, dtype: torch.dtype) -> StoredTensor:
    """Keep the bridge's matrices narrow beside a narrow LLaMA; everything else is float32."""
    if name.startswith(("adapter.blocks.", "adapter.projection.")) and len(value.shape) == 2 and dtype in _HALF:
        return value if value.dtype in _HALF else value.to(dtype)
    return value.to(torch.float32)


def _by_module(tensors: Mapping[str, StoredTensor]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in tensors:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    return modules


def _replace_linear(llama: nn.Module, name: str, placement: Placement) -> None:
    """Quantise a linear layer that has just been filled, so that only one is ever in memory unquantised."""
    if placement.quantise is None or not name.startswith("model.layers."):
        return
    parent, _, leaf = name.rpartition(".")
    linear = llama.get_submodule(name)
    if isinstance(linear, nn.Linear):
        setattr(llama.get_submodule(parent), leaf, quantise_linear(linear, placement.quantise))
