"""Linear layers that are fast when a CPU decodes one token at a time.

One row through a linear is a plain read of its weights, so its speed is a share of the memory's. Measured on two
cores of an AMD EPYC 9004 (torch 2.13, weights beyond the caches): oneDNN, PyTorch's choice for bf16, reads at 50 % of
the memory's bandwidth, PyTorch's own bf16 kernel at 65 to 98 %; int8 and int4 read less and pass both.

Many rows are another matter: a processor without AVX-512 has no fast bf16 product at all, and a prompt took four times
as long as in float32 there. So it is multiplied in float32, piece by piece, the weights staying bf16.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as multiply

from mu_llama import devices

# Weights turned to floats at a time, and up to how many rows are multiplied as a prompt's are.
_FLOATS_NUMEL = 2**19
_MAX_PROMPT_ROWS = 256
# Beyond a few, rows are multiplied in blocks of so many.
_FEW_ROWS, _ROW_BLOCK = 4, 16

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
        if not is_one_row and devices.is_cpu_slow_at_bf16():
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
    if is_trained or len(wide) > _MAX_PROMPT_ROWS:
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
