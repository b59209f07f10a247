"""Spread a LLaMA's layers over several devices; the only door to accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mu_llama.engine.protocol import DeviceMap
from mu_llama.errors import ConfigError

_WHOLE_LAYER = ["LlamaDecoderLayer"]


def plan_devices(
    llama: nn.Module,
    device_map: DeviceMap,
    *,
    quantize: str | None = None,
    max_memory: dict[int | str, int | str] | None = None,
) -> dict[str, torch.device]:
    """Decide where each part of the LLaMA goes.

    Args:
        llama: on the meta device; a decoder layer is never split.
        device_map: `auto` fills the GPUs one after another, evenly; a mapping names modules (`model.layers.3`,
            the empty name for all that is left) and devices.
        quantize: int8 or int4 where linear layers will be that small.
        max_memory: device to bytes (or text such as "20GiB") that may be used of it; None for all.

    Returns:
        Module to device.

    Raises:
        ConfigError: if accelerate isn't installed, a module is nowhere, or not everything fits.
    """
    accelerate = _accelerate()
    if device_map == "auto":
        sizes = {} if quantize is None else {"dtype": _custom_width(quantize)}
        balanced = accelerate.utils.get_balanced_memory(
            llama, max_memory=max_memory, no_split_module_classes=_WHOLE_LAYER, **sizes
        )
        places = accelerate.infer_auto_device_map(
            llama, max_memory=balanced, no_split_module_classes=_WHOLE_LAYER, **sizes
        )
    elif isinstance(device_map, Mapping):
        places = dict(device_map)
        missing = [name for name, _ in llama.named_parameters() if _entry(places, name) is None]
        if missing:
            raise ConfigError(f"the device map has no place for {missing[0]!r}; name its module, or '' for the rest")
    else:
        raise ConfigError(f"device map is {device_map!r}; expected auto or a table of modules and devices")
    if "disk" in places.values():
        raise ConfigError("the model doesn't fit the devices and memory of this machine; use --quantize int8 or int4")
    # accelerate counts GPUs
    return {name: torch.device("cuda", d) if isinstance(d, int) else torch.device(d) for name, d in places.items()}


def device_of(devices: Mapping[str, torch.device], module: str) -> torch.device:
    """Look up where a module goes: its own entry, else its nearest parent's."""
    entry = _entry(devices, module)
    assert entry is not None, "a plan has a place for every module"
    return devices[entry]


def attach_hooks(llama: nn.Module, devices: Mapping[str, torch.device]) -> None:
    """Let activations follow from device to device."""
    _accelerate().dispatch_model(llama, device_map=dict(devices), force_hooks=True, skip_keys="past_key_values")


def _entry(devices: Mapping[str, Any], module: str) -> str | None:
    while module not in devices:
        if not module:
            return None
        module = module.rpartition(".")[0]
    return module


def _custom_width(quantize: str) -> Any:
    return torch.int8 if quantize == "int8" else _accelerate().utils.CustomDtype.INT4


def _accelerate() -> Any:
    try:
        import accelerate
    except ImportError as error:
        raise ConfigError("a device map needs accelerate; run: pip install 'mu-llama[multi-gpu]'") from error
    return accelerate
