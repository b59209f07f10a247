"""Replace a linear by a quantized one, and the only door to bitsandbytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as multiply

from mu_llama.engine.protocol import Quantization
from mu_llama.errors import ConfigError

INT4_GROUP = 32
"""Input columns that share a scale and a zero; the smallest group PyTorch's kernel takes, so the most exact."""
# PyTorch's int8 kernel reads whole vectors of a row and has no tail: other widths give wrong sums or a crash.
INT8_KERNEL_WIDTH = 32
# Its int4 packing takes rows by 16.
INT4_KERNEL_ROWS = 16
# Above so many rows, turning the weights to floats piece by piece beats PyTorch's int8 kernel.
_MAX_INT8_KERNEL_ROWS = 8
# Weights turned to floats at a time: small enough to stay in the cache.
_PIECE_NUMEL = 2**21
_MAX_FLOAT_COLUMNS = 32


class Int8Linear(nn.Module):
    """A linear whose weights are int8 with one scale per output, but for the few input columns with the largest.

    Those columns would stretch the scale of every row, so they keep the dtype they came in (as activations' do in
    LLM.int8(), arXiv 2208.07339). Activations are never quantized. Runs on any device and with any widths.
    """

    quantized: Tensor
    scale: Tensor
    float_columns: Tensor
    float_weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantize.

        Args:
            weight: (out, in), any float dtype, on its device.
            bias: (out) or None.
        """
        super().__init__()
        self.out_features, self.in_features = weight.shape
        num_float = max(1, min(_MAX_FLOAT_COLUMNS, self.in_features // 16))
        columns = weight.abs().amax(dim=0).topk(num_float).indices.sort().values
        quantized = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        scale = torch.empty(self.out_features, dtype=weight.dtype, device=weight.device)
        num_rows = _piece_rows(self.in_features)
        for part, into, part_scale in zip(
            torch.split(weight, num_rows), torch.split(quantized, num_rows), torch.split(scale, num_rows), strict=True
        ):
            rest = part.float().index_fill(1, columns, 0.0)
            part_scale.copy_((rest.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny))
            # Divided by the scale as it was rounded, so that its rounding costs nothing.
            into.copy_((rest / part_scale.float()[:, None]).round_().clamp_(-127, 127))
        self.register_buffer("quantized", quantized)
        self.register_buffer("scale", scale)
        self.register_buffer("float_columns", columns)
        self.register_buffer("float_weight", weight.index_select(1, columns))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        rows = x.reshape(-1, self.in_features)
        # The kernel is a plain loop for float32.
        narrow = len(rows) <= _MAX_INT8_KERNEL_ROWS and rows.dtype == torch.bfloat16 and rows.device.type == "cpu"
        if narrow and self.in_features % INT8_KERNEL_WIDTH == 0:
            out = torch._weight_int8pack_mm(rows.contiguous(), self.quantized, self.scale.to(rows.dtype))
            out += multiply(rows.index_select(1, self.float_columns), self.float_weight.to(rows.dtype))
        else:
            out = torch.cat([multiply(rows, piece) for piece in self._float_pieces(rows.dtype)], dim=1)
        if self.bias is not None:
            out += self.bias.to(rows.dtype)
        return out.reshape(*x.shape[:-1], self.out_features)

    def _float_pieces(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """The weights as floats, some rows (N, in) at a time."""
        num_rows = _piece_rows(self.in_features)
        parts = (torch.split(value, num_rows) for value in (self.quantized, self.scale, self.float_weight))
        for quantized, scale, floats in zip(*parts, strict=True):
            piece = quantized.to(dtype) * scale.to(dtype)[:, None]
            yield piece.index_copy_(1, self.float_columns, floats.to(dtype))

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int4Linear(nn.Module):
    """A linear of 5 bits a weight on a CPU: int4, and a scale and a zero for each group of 32 input columns.

    The packed layout is the CPU's own: it can't be moved to another device or stored for another machine.
    """

    packed: Tensor
    scale_and_zero: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantize.

        Args:
            weight: (out, in) on the CPU, widths as `int4_fits` demands.
            bias: (out) or None.
        """
        super().__init__()
        self.out_features, self.in_features = weight.shape
        num_rows = _piece_rows(self.in_features)
        packed, tables = zip(*(_pack_int4(part) for part in torch.split(weight, num_rows)), strict=True)
        self.register_buffer("packed", torch.cat(packed))
        # (out, groups, 2) -> (groups, out, 2), as the kernel wants it
        self.register_buffer("scale_and_zero", torch.cat(tables).transpose(0, 1).contiguous())
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        rows = x.reshape(-1, self.in_features).to(self.scale_and_zero.dtype).contiguous()
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, INT4_GROUP, self.scale_and_zero)
        out: Tensor = product if self.bias is None else product + self.bias
        return out.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def int4_fits(weight: Tensor) -> bool:
    """Whether `Int4Linear` can hold these weights (out, in)."""
    return weight.device.type == "cpu" and weight.shape[0] % INT4_KERNEL_ROWS == 0 and weight.shape[1] % INT4_GROUP == 0


def _pack_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize and pack some rows (N, in): bytes (N, in / 2) and (N, groups, 2) of scale and zero.

    The kernel reads a weight as `(q - 8) * scale + zero`, q from 0 to 15.
    """
    groups = weight.float().reshape(len(weight), -1, INT4_GROUP)  # (N, in) -> (N, groups, 32)
    low, high = groups.amin(dim=2), groups.amax(dim=2)
    scale = ((high - low) / 15).clamp_min(torch.finfo(torch.float32).tiny)
    table = torch.stack([scale, low + 8 * scale], dim=2).to(weight.dtype)
    # From the table as it was rounded, so that its rounding costs little.
    steps = (groups - table[..., 1:].float()) / table[..., :1].float()
    quantized = steps.round_().add_(8).clamp_(0, 15).to(torch.int32).flatten(1)  # (N, groups, 32) -> (N, in)
    # The kernel's number of inner tiles means nothing on a CPU.
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(quantized, 1), table


def _piece_rows(in_features: int) -> int:
    """How many rows to take at a time: a multiple of 64, the int4 packing's block."""
    return max(64, _PIECE_NUMEL // in_features // 64 * 64)


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
