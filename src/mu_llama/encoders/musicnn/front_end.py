"""The front-end of MusiCNN: the log mel spectrogram, and filters over its patches, each reduced to its maximum.

Three facts make the filters several times faster than layer-by-layer convolution, at the same precision:

- Bias, ReLU and batch normalisation are monotone, so the maximum over frequency can be taken of the bare
  correlation, and the rest done on a thirtieth to a ninety-sixth of the numbers.
- Weight decay has zeroed most filters (of 561, 497 in the MSD variant and 303 in the MTT variant). What such
  a filter gives is a constant, known when the network is built.
- The variants get the same patches, so their filters stand side by side in one matrix, each variant's input
  normalisation folded in.

Correlations are written as matrix products over views of the patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

RATE_HZ = 16000
FFT_SIZE = 512
HOP = 256


class LogMel(nn.Module):
    """`log10(1 + 10000 * mel power)` of mono sound at 16 kHz, all in float32.

    The original casts the mel power to float16 before the multiplication, so that loud music overflows to
    infinity; this doesn't (facts from musicnn 0.1.0, `extractor.batch_data`).

    Args:
        filters: mel filter bank of shape (bands, FFT_SIZE // 2 + 1).
    """

    filters: torch.Tensor
    taper: torch.Tensor

    def __init__(self, filters: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("filters", filters)
        self.register_buffer("taper", torch.hann_window(FFT_SIZE))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Compute the spectrogram with frames centred at multiples of HOP and silence beyond the ends.

        Args:
            samples: float32 of shape (S,).

        Returns:
            Float32 of shape (1 + S // HOP, bands).
        """
        spectrum = torch.stft(
            samples, FFT_SIZE, HOP, window=self.taper, center=True, pad_mode="constant", return_complex=True
        )
        power = torch.view_as_real(spectrum).square().sum(-1)  # (bins, frames)
        return (self.filters @ power).mul_(10000).log1p_().mul_(0.4342944819032518).T


Tensors = Mapping[str, torch.Tensor]

NORM_EPSILON = 1e-3
LARGEST_INPUT = 8.0  # log10(1 + 10000 * mel) of sound ten times louder than full scale
NEGLIGIBLE = 1e-4  # a filter whose output can't move further than this is a constant
BLOCK = 16  # consecutive frames of a temporal filter's output that make one row of the product


def norm_affine(tensors: Tensors, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (scale, offset) that a trained batch normalisation amounts to."""
    scale = tensors[f"{layer}.gamma"] / torch.sqrt(tensors[f"{layer}.variance"] + NORM_EPSILON)
    return scale, tensors[f"{layer}.beta"] - tensors[f"{layer}.mean"] * scale


class FrontEndLayer(nn.Module):
    """One front-end layer of all variants: correlation, bias, ReLU, normalisation, maximum over frequency.

    Args:
        variants: each variant's tensors by `<layer>.<leaf>`.
        layer: such as `timbral_38` (filters 7 frames by 38 bands) or `temporal_128` (128 frames by 1 band).
        num_frames: length of the patches.
    """

    frame_bias: torch.Tensor
    sign: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor
    constants: torch.Tensor
    live: torch.Tensor

    def __init__(self, variants: Sequence[Tensors], layer: str, *, num_frames: int) -> None:
        super().__init__()
        kernels, biases, shifts = [], [], []
        for tensors in variants:
            input_scale, input_offset = norm_affine(tensors, "input")
            kernels.append(tensors[f"{layer}.kernel"] * input_scale)
            biases.append(tensors[f"{layer}.bias"])
            # the input is zero-padded after its normalisation, so the shift is felt only inside the patch
            shifts.append((input_offset / input_scale).expand(len(biases[-1])))
        kernel, bias, shift = torch.cat(kernels), torch.cat(biases), torch.cat(shifts)
        scale, offset = (torch.cat(parts) for parts in zip(*(norm_affine(t, layer) for t in variants), strict=True))
        sums = kernel.sum(2)  # (filters, kernel frames)
        reach = (sums.shape[1] - 1) // 2, sums.shape[1] // 2
        inside = F.conv1d(F.pad(torch.ones(1, num_frames), reach)[None], sums[:, None])[0]  # (filters, frames)
        frame_bias = bias[:, None] + shift[:, None] * inside
        live = (kernel.abs().sum((1, 2)) * LARGEST_INPUT * scale.abs() > NEGLIGIBLE).nonzero()[:, 0]
        # under a negative scale the minimum is needed: minus the maximum of the negative
        sign = scale[live].sign()
        self.register_buffer("live", live)
        self.register_buffer("constants", scale * F.relu(frame_bias[:, num_frames // 2]) + offset)
        self.register_buffer("sign", sign)
        self.register_buffer("frame_bias", frame_bias[live].T.contiguous())
        self.register_buffer("scale", scale[live])
        self.register_buffer("offset", offset[live])
        correlate = TimbralPeaks if kernel.shape[2] > 1 else TemporalPeaks
        self.peaks = correlate(kernel[live] * sign[:, None, None])
        self.num_variants = len(variants)

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give each variant's channels.

        Args:
            patches: log mel of shape (P, frames, bands).

        Returns:
            One float32 tensor of shape (P, frames, filters) for each variant.
        """
        peaks: torch.Tensor = self.peaks(patches)
        channels = self.constants.expand(*peaks.shape[:2], -1).clone()
        channels[..., self.live] = F.relu(peaks * self.sign + self.frame_bias) * self.scale + self.offset
        return channels.chunk(self.num_variants, -1)


class TimbralPeaks(nn.Module):
    """Correlation with filters over a few frames and many bands, and its maximum over frequency.

    Args:
        kernel: filters of shape (N, frames, bands).
    """

    matrix: torch.Tensor

    def __init__(self, kernel: torch.Tensor) -> None:
        super().__init__()
        self.num_taps, self.num_bands = kernel.shape[1:]
        self.register_buffer("matrix", kernel.permute(2, 1, 0).flatten(0, 1).contiguous())

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (P, frames, bands), silent beyond their ends, to peaks (P, frames, N)."""
        num_patches, num_frames, num_bands = patches.shape
        taps = self.num_taps
        padded = F.pad(patches, (0, 0, (taps - 1) // 2, taps // 2))
        rows = padded.unfold(1, taps, 1).reshape(num_patches * num_frames, num_bands * taps)
        windows = rows.unfold(1, taps * self.num_bands, taps).transpose(0, 1)  # (positions, rows, K), a view
        return _largest_product(windows, self.matrix).view(num_patches, num_frames, -1)


class TemporalPeaks(nn.Module):
    """Correlation with filters over many frames of one band, and its maximum over frequency.

    A row of the product gives BLOCK consecutive output frames: all that they need of a band's time course,
    times the filters written BLOCK times, each one frame further (a Toeplitz matrix).

    Args:
        kernel: filters of shape (N, frames, 1).
    """

    matrix: torch.Tensor

    def __init__(self, kernel: torch.Tensor) -> None:
        super().__init__()
        self.num_taps = kernel.shape[1]
        shifted = [F.pad(kernel[..., 0], (step, BLOCK - 1 - step)) for step in range(BLOCK)]
        self.register_buffer("matrix", torch.cat(shifted).T.contiguous())  # (taps + BLOCK - 1, BLOCK * N)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (P, frames, bands), silent beyond their ends, to peaks (P, frames, N)."""
        num_patches, num_frames, _ = patches.shape
        num_blocks = -(-num_frames // BLOCK)
        before = (self.num_taps - 1) // 2
        after = num_blocks * BLOCK + self.num_taps - 1 - before - num_frames
        padded = F.pad(patches.permute(2, 0, 1), (before, after))
        windows = padded.unfold(2, self.num_taps + BLOCK - 1, BLOCK).flatten(1, 2)  # (bands, P * blocks, K)
        peaks = _largest_product(windows, self.matrix)
        return peaks.view(num_patches, num_blocks * BLOCK, -1)[:, :num_frames]


def _largest_product(windows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return the maximum over W of `windows @ matrix`: (W, rows, K) and (K, columns) give (rows, columns)."""
    return torch.bmm(windows, matrix.expand(len(windows), -1, -1)).amax(0)
