"""Linear layers that are fast when a CPU decodes one token at a time.

One row through a linear is a plain read of its weights, so its speed is a share of the memory's. Measured on two
cores of an AMD EPYC 9004 (torch 2.13, weights beyond the caches): oneDNN, PyTorch's choice for bf16, reads at 50 % of
the memory's bandwidth, PyTorch's own bf16 kernel at 65 to 98 %; int8 and int4 read less and pass both.

Many rows are another matter: a processor without AVX-512 has no fast bf16 product at all, and a prompt took four times
as long as in float32 there. So it is multiplied in float32, piece by piece, the weights staying bf16.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as multiply

INT4_GROUP = 32
"""Input columns that share a scale and a zero; the smallest group PyTorch's kernel takes, so the most exact."""
# PyTorch's int8 kernel reads whole vectors of a row and has no tail: other widths give wrong sums or a crash.
INT8_KERNEL_WIDTH = 32
# Its int4 packing takes rows by 16.
INT4_KERNEL_ROWS = 16
# Above so many rows, turning the weights to floats piece by piece beats PyTorch's int8 kernel.
_MOST_INT8_KERNEL_ROWS = 8
# Weights turned to floats at a time: small enough to stay in the cache.
_PIECE_NUMEL = 2**21
# The same for bf16 weights, and up to how many rows are multiplied as a prompt's are.
_FLOATS_NUMEL = 2**19
_MOST_PROMPT_ROWS = 256
# Beyond a few, rows are multiplied in blocks of so many.
_FEW_ROWS, _ROW_BLOCK = 4, 16
_MOST_KEPT_COLUMNS = 32

SLOW_BF16 = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
"""Whether oneDNN has no kernels for bf16 here (x86 without AVX-512), or they aren't known to be fast."""

_ONEDNN_TAKES_BF16 = torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
# oneDNN's switch belongs to the process. Whoever multiplies in bf16 here holds this lock, so that the wide products
# of one thread never run while another has it off: without oneDNN they take ten times as long.
_ONEDNN = threading.Lock()
_ROOM = threading.local()


class DecodingLinear(nn.Linear):
    """An `nn.Linear` that multiplies one bf16 row on a CPU with PyTorch's own kernel instead of oneDNN's.

    More rows go through float32 where the processor is slow at bf16, else the stock path, as other dtypes and devices
    do. Sums are float32 in each case.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.Linear gives it)
        """Map (..., in) to (..., out)."""
        if self.weight.dtype != torch.bfloat16 or self.weight.device.type != "cpu":
            return super().forward(input)
        is_one_row = input.numel() == self.in_features
        if SLOW_BF16 and not is_one_row:
            product = _through_floats(input, self.weight)
        elif is_one_row and not _ONEDNN_TAKES_BF16:
            product = multiply(input, self.weight)  # the kernel wanted, without asking
        else:
            with _ONEDNN:
                before = torch._C._get_mkldnn_enabled()
                if not is_one_row:
                    return super().forward(input)
                torch._C._set_mkldnn_enabled(False)
                try:
                    product = multiply(input, self.weight)
                finally:
                    torch._C._set_mkldnn_enabled(before)
        return product if self.bias is None else product + self.bias


def _through_floats(rows: Tensor, weight: Tensor) -> Tensor:
    """Multiply (..., in) by bf16 weights (out, in) in float32, some of the weights at a time; rounded at the end."""
    pieces = torch.split(weight, max(1, _FLOATS_NUMEL // weight.shape[1]))
    wide = rows.reshape(-1, weight.shape[1]).float()
    is_trained = torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad)
    if is_trained or len(wide) > _MOST_PROMPT_ROWS:
        narrow = torch.cat([multiply(wide, piece.float()).to(rows.dtype) for piece in pieces], dim=-1)
    else:
        narrow = _prompt_product(wide, pieces).to(rows.dtype, memory_format=torch.contiguous_format)
    return narrow.view(*rows.shape[:-1], len(weight))


def _prompt_product(wide: Tensor, pieces: Sequence[Tensor]) -> Tensor:
    """Multiply few rows (N, in) by pieces of the weights; gives (N, out) in float32, a view of its transpose.

    Weights times rows, not rows times weights: MKL keeps two cores busier with few rows. The pieces become floats in
    one place, since fresh memory for each costs time too. Rows of zeros fill MKL's blocks up: it takes longer for 15
    rows than for 16.
    """
    num_out, num_rows = sum(len(piece) for piece in pieces), len(wide)
    if num_rows > _FEW_ROWS:
        wide = nn.functional.pad(wide, (0, 0, 0, -num_rows % _ROW_BLOCK))
    product, floats = wide.new_empty(num_out, len(wide)), _floats_of_thread(pieces[0].numel())
    for piece, into in zip(pieces, torch.split(product, len(pieces[0])), strict=True):
        torch.mm(floats[: piece.numel()].view_as(piece).copy_(piece), wide.t(), out=into)
    return product.t()[:num_rows]


def _floats_of_thread(numel: int) -> Tensor:
    """Room for so many float32, of this thread alone."""
    floats: Tensor | None = getattr(_ROOM, "floats", None)
    if floats is None or floats.numel() < numel:
        with torch.inference_mode(False):  # else it could be used in that mode alone
            floats = _ROOM.floats = torch.empty(max(numel, _FLOATS_NUMEL))
    return floats


class Int8Linear(nn.Module):
    """A linear whose weights are int8 with one scale per output, but for the few input columns with the largest.

    Those columns would stretch the scale of every row, so they keep the dtype they came in (as activations' do in
    LLM.int8(), arXiv 2208.07339). Activations are never quantized. Runs on any device and with any widths.
    """

    quantized: Tensor
    scale: Tensor
    kept_columns: Tensor
    kept_weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantize.

        Args:
            weight: (out, in), any float dtype, on its device.
            bias: (out) or None.
        """
        super().__init__()
        self.out_features, self.in_features = weight.shape
        num_kept = max(1, min(_MOST_KEPT_COLUMNS, self.in_features // 16))
        columns = weight.abs().amax(dim=0).topk(num_kept).indices.sort().values
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
        self.register_buffer("kept_columns", columns)
        self.register_buffer("kept_weight", weight.index_select(1, columns))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        rows = x.reshape(-1, self.in_features)
        # The kernel is a plain loop for float32.
        narrow = len(rows) <= _MOST_INT8_KERNEL_ROWS and rows.dtype == torch.bfloat16 and rows.device.type == "cpu"
        if narrow and self.in_features % INT8_KERNEL_WIDTH == 0:
            out = torch._weight_int8pack_mm(rows.contiguous(), self.quantized, self.scale.to(rows.dtype))
            out += multiply(rows.index_select(1, self.kept_columns), self.kept_weight.to(rows.dtype))
        else:
            out = torch.cat([multiply(rows, piece) for piece in self._float_pieces(rows.dtype)], dim=1)
        if self.bias is not None:
            out += self.bias.to(rows.dtype)
        return out.reshape(*x.shape[:-1], self.out_features)

    def _float_pieces(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """The weights as floats, some rows (N, in) at a time."""
        num_rows = _piece_rows(self.in_features)
        parts = (torch.split(value, num_rows) for value in (self.quantized, self.scale, self.kept_weight))
        for quantized, scale, kept in zip(*parts, strict=True):
            piece = quantized.to(dtype) * scale.to(dtype)[:, None]
            yield piece.index_copy_(1, self.kept_columns, kept.to(dtype))

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


def fast_linear(linear: nn.Linear) -> DecodingLinear:
    """Give a linear the fast path of one row; it shares the very parameters, so ties and names stay.

    Args:
        linear: on any device, the meta device too.

    Example:
        >>> linear = nn.Linear(4, 2, bias=False)
        >>> fast_linear(linear).weight is linear.weight
        True
    """
    fast = DecodingLinear.__new__(DecodingLinear)  # its __init__ would draw weights, to be thrown away
    fast.__dict__.update(linear.__dict__, _parameters=dict(linear._parameters))
    return fast


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
