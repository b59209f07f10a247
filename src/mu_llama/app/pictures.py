"""The mel spectrogram of a track as a picture."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mu_llama.audio.read import read_audio
from mu_llama.encoders.log_mel import RATE_HZ, LogMel
from mu_llama.encoders.musicnn import read_musicnn_weights

_MOST_S = 600.0
_WIDTH, _PIXELS_A_BAND = 900, 2
# Dark blue over red to yellow, dark to bright for people who see no colours too.
_COLOURS = np.array([(8, 8, 32), (60, 16, 110), (160, 40, 110), (235, 100, 60), (252, 190, 70), (252, 253, 190)])


def mel_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Draw time to the right and pitch upwards, up to ten minutes.

    Returns:
        RGB of shape (192, up to 900, 3).

    Raises:
        AudioError: if the file can't be heard.
    """
    samples = read_audio(path, rate_hz=RATE_HZ, duration_s=_MOST_S).samples
    with torch.inference_mode():
        mel = _log_mel()(torch.from_numpy(samples)).numpy()  # (frames, bands)
    columns = min(_WIDTH, len(mel))
    parts = np.array_split(mel, columns)
    picture = np.stack([part.mean(axis=0) for part in parts], axis=1)[::-1]  # (bands, columns), high ones on top
    low, high = np.percentile(picture, (5, 99.5))
    level = np.clip((picture - low) / max(high - low, 1e-6), 0, 1)
    return _coloured(np.repeat(level, _PIXELS_A_BAND, axis=0))


@cache
def _log_mel() -> LogMel:
    return LogMel(read_musicnn_weights().tensors["mel_filters"])


def _coloured(level: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level, places, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)
