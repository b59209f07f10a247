"""The log mel spectrogram that MusiCNN hears."""

from __future__ import annotations

import torch
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
