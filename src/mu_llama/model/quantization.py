"""Replace a linear by a quantized one, and the only door to bitsandbytes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from mu_llama.errors import ConfigError
from mu_llama.model.linears import Int4Linear, Int8Linear, int4_fits

Quantization = Literal["int8", "int4"]


@torch.no_grad()
def quantize_linear(linear: nn.Linear, kind: Quantization) -> nn.Module:
    """Make the weight-only quantized replacement of one linear, on the linear's device.

    To keep the peak of memory low, call it as each linear is read and drop the linear: it isn't referred to. A model
    goes to its device first and is quantized there.

    Args:
        linear: real weights (out, in), bf16 or float32, with or without a bias.
        kind: `int8` is PyTorch's own everywhere. `int4` is PyTorch's own on a CPU and bitsandbytes' NF4 elsewhere;
            on a CPU, widths that don't fit (out by 16, in by 32) get int8.

    Returns:
        A module from (..., in) to (..., out) in the dtype of its input; the sums are float32.

    Raises:
        ConfigError: if bitsandbytes is needed and isn't installed.

    Example:
        >>> quantize_linear(nn.Linear(64, 32), "int8")(torch.ones(1, 64)).shape
        torch.Size([1, 32])
    """
    weight = linear.weight.detach()
    bias = None if linear.bias is None else linear.bias.detach()
    if kind == "int4" and weight.device.type != "cpu":
        return nf4_linear(linear)
    if kind == "int4" and int4_fits(weight):
        return Int4Linear(weight, bias)
    return Int8Linear(weight, bias)


def nf4_linear(linear: nn.Linear) -> nn.Module:
    """Quantize with bitsandbytes: NF4 (arXiv 2305.14314) with a float32 scale for every 64 weights.

    Raises:
        ConfigError: if bitsandbytes isn't installed.
    """
    layers = _bitsandbytes().nn
    weight = linear.weight.detach()
    quantized: nn.Module = layers.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=weight.dtype,
        compress_statistics=False,
        quant_type="nf4",
        device="meta",
    )
    quantized.weight = layers.Params4bit(
        weight, requires_grad=False, compress_statistics=False, quant_type="nf4", module=quantized
    ).to(weight.device)
    quantized.bias = linear.bias
    return quantized.eval()


def nf4_fits(weight: torch.Tensor) -> bool:
    """Whether bitsandbytes' kernels take these weights (out, in) on every device."""
    return weight.shape[0] % 32 == 0 and weight.shape[1] % 64 == 0


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ConfigError(
            "int4 on this device needs bitsandbytes, which isn't installed: pip install 'mu-llama[quantize]', or use "
            "int8"
        ) from error
    return bitsandbytes
