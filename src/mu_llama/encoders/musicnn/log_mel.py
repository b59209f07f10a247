"""The log mel spectrogram that MusiCNN reads, in numpy."""

from __future__ import annotations

import numpy as np

from mu_llama.arrays import FloatArray
from mu_llama.audio.waveform import Samples

RATE_HZ = 16000
FFT_SIZE = 512
HOP = 256
FRAMES_AT_ONCE = 128  # small enough that their spectra stay in the CPU's cache
_LOG10_E = 0.4342944819032518


class LogMel:
    """`log10(1 + 10000 * mel power)` of mono sound at 16 kHz, all in float32.

    The original casts the mel power to float16 before the multiplication, so that loud music overflows to
    infinity; this doesn't (facts from musicnn 0.1.0, `extractor.batch_data`).

    A band is a sum over its own few bins. A product with the whole filter bank, 98 % of which is zero, would run in
    the BLAS, whose idle threads poll for work while the network computes.

    Args:
        filters: mel filter bank of shape (bands, FFT_SIZE // 2 + 1); no band may be all zero.
    """

    def __init__(self, filters: FloatArray) -> None:
        spans = [(int(bins[0]), int(bins[-1]) + 1) for bins in map(np.flatnonzero, filters)]
        self._bins = np.concatenate([np.arange(first, end) for first, end in spans])
        self._weights = np.concatenate([row[first:end] for row, (first, end) in zip(filters, spans, strict=True)])
        self._starts = np.cumsum([0] + [end - first for first, end in spans[:-1]])
        self._taper = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)).astype(np.float32)
        self.num_bands = len(filters)

    def __call__(self, samples: Samples) -> FloatArray:
        """Compute the spectrogram with frames centred at multiples of HOP and silence beyond the ends.

        Args:
            samples: float32 of shape (S,).

        Returns:
            Float32 of shape (1 + S // HOP, bands).
        """
        padded = np.pad(samples, FFT_SIZE // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP]
        spectrogram = np.empty((len(frames), self.num_bands), np.float32)
        for start in range(0, len(frames), FRAMES_AT_ONCE):
            part = slice(start, start + FRAMES_AT_ONCE)
            spectrum = np.fft.rfft(frames[part] * self._taper)  # (frames, bins)
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            weighted = power[:, self._bins] * self._weights
            spectrogram[part] = np.add.reduceat(weighted, self._starts, axis=1)
        spectrogram *= 10000
        np.log1p(spectrogram, out=spectrogram)
        spectrogram *= _LOG10_E
        return spectrogram
