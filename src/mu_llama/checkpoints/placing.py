"""Put named tensors into a model that was built on the meta device, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mu_llama.checkpoints.llama_names import unknown_keys_message
from mu_llama.errors import CheckpointError


def place_tensors(model: nn.Module, tensors: Mapping[str, Tensor], *, source: object) -> None:
    """Assign every tensor by name, without a copy, and leave nothing on the meta device.

    Args:
        model: modules on the meta device.
        tensors: every parameter and saved buffer, under the model's own names; a tied output embedding may
            be left out.
        source: the file or folder to name in an error.

    Raises:
        CheckpointError: naming unexpected or missing keys, or a shape that doesn't fit.
    """
    expected = model.state_dict()
    tied = _tied_names(model)
    unknown = tensors.keys() - expected.keys()
    missing = sorted(expected.keys() - tensors.keys() - tied)
    if unknown:
        raise CheckpointError(unknown_keys_message(source, unknown, expected))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{source}: {missing[0]!r}{more} missing; expected all weights of the model")
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{source}: {name!r} has shape {tuple(value.shape)}; expected {tuple(expected[name].shape)}"
            )
    model.load_state_dict(dict(tensors), strict=False, assign=True)
    module: Any
    for module in model.modules():
        if hasattr(module, "tie_weights"):
            module.tie_weights()
        # Rotary tables are computed, not stored: made again on a real device.
        if type(module).__name__.endswith("RotaryEmbedding"):
            fresh = type(module)(config=module.config)
            module.load_state_dict(fresh.state_dict(), assign=True)
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
