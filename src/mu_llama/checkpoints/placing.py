"""Put named tensors into modules that were built on the meta device, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_memory
from mu_llama.checkpoints.llama_names import unknown_keys_message
from mu_llama.errors import CheckpointError


def check_fit(model: nn.Module, tensors: Mapping[str, LazyTensor], *, source: object) -> None:
    """Compare names and shapes with the model's, before anything is read.

    Args:
        model: the modules.
        tensors: every parameter and saved buffer, under the model's own names; a tied output embedding may
            be left out.
        source: the file or folder to name in an error.

    Raises:
        CheckpointError: naming unexpected or missing keys, or a shape that doesn't fit.
    """
    expected = model.state_dict()
    unknown = tensors.keys() - expected.keys()
    missing = sorted(expected.keys() - tensors.keys() - _tied_names(model))
    if unknown:
        raise CheckpointError(unknown_keys_message(source, unknown, expected))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{source}: {missing[0]!r}{more} missing; expected all weights of the model")
    for name, value in tensors.items():
        if value.shape != tuple(expected[name].shape):
            raise CheckpointError(f"{source}: {name!r} has shape {value.shape}; expected {tuple(expected[name].shape)}")


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


def place_tensors(model: nn.Module, tensors: Mapping[str, Tensor], *, source: object) -> None:
    """Fill a whole model with tensors that are in memory, without a copy.

    Raises:
        CheckpointError: as `check_fit`.
    """
    check_fit(model, {name: in_memory(value) for name, value in tensors.items()}, source=source)
    for name, value in tensors.items():
        put(model, name, value)
    finish(model)


def _tied_names(model: nn.Module) -> set[str]:
    return {
        f"{name}.lm_head.weight" if name else "lm_head.weight"
        for name, module in model.named_modules()
        if getattr(getattr(module, "config", None), "tie_word_embeddings", False) and hasattr(module, "lm_head")
    }
