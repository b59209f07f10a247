"""What the page shows besides text: its style and scripts, and the mel spectrogram of a track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mu_llama.app.compute_thread import ComputeThread
from mu_llama.audio.downmix import Downmix
from mu_llama.audio.read import AudioStream, open_audio
from mu_llama.audio.resample import ResampleStream
from mu_llama.encoders.musicnn.encoder import read_musicnn_weights
from mu_llama.encoders.musicnn.log_mel import RATE_HZ, LogMel

CSS = """
.gradio-container {max-width: 1200px !important; margin: 0 auto !important}
footer {display: none !important}
#room {display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); grid-template-rows: auto 1fr;
  grid-template-areas: "track talk" "heard talk"}
#track-side {grid-area: track} #talk-side {grid-area: talk} #heard-side {grid-area: heard}
#heard {font-size: 0.9em}
#picture img {image-rendering: auto; object-fit: fill; width: 100%}
@media (max-width: 768px) {#room {grid-template-columns: minmax(0, 1fr); grid-template-rows: auto;
  grid-template-areas: "track" "talk" "heard"}}
@media (max-width: 640px) {.gradio-container {padding: 8px !important} #chat {height: 50vh !important}}
"""

EMPTY_THE_BOX = """
(...values) => {
  const box = document.querySelector('#question textarea');
  box.value = '';
  box.dispatchEvent(new Event('input', {bubbles: true}));
  return values;
}
"""
"""Runs before a question is sent: the box is free for the next one while this one may wait in the queue."""

_PLAIN_TOASTS = """
() => {
  const told = [
    [/^Invalid file type: (.*)\\. Only .*/s, name => `${name} is no audio file; give a WAV, MP3, FLAC or the like.`],
    [/^File\\(s\\) exceed the maximum.*: "(.*)"/s, name => `${name} has more than MOST MB; cut or compress it.`],
  ];
  new MutationObserver(() => document.querySelectorAll('[data-testid=toast-text]').forEach(toast => {
    for (const [pattern, plain] of told) {
      const found = toast.textContent.match(pattern);
      if (found) toast.textContent = plain(found[1]);
    }
  })).observe(document.body, {childList: true, subtree: true});
}
"""


def plain_toasts(most_mb: int) -> str:
    """A script that says in a sentence, with what to do, why gradio's own upload refused a file.

    Args:
        most_mb: size of the largest file, in megabytes.
    """
    return _PLAIN_TOASTS.replace("MOST", str(most_mb))


_PIECE_S = 60
_WIDTH, _PIXELS_A_BAND = 900, 2
# Dark blue over red to yellow, dark to bright for people who see no colours too.
_COLOURS = np.array([(8, 8, 32), (60, 16, 110), (160, 40, 110), (235, 100, 60), (252, 190, 70), (252, 253, 190)])


@dataclass(frozen=True, eq=False)
class MelPicture:
    """A track as a picture."""

    image: npt.NDArray[np.uint8]
    """RGB of shape (192, up to 900, 3): time to the right, pitch upwards."""
    problem: str | None
    """What of the file couldn't be read, in a sentence; None where all could."""


def mel_picture(path: Path, compute: ComputeThread) -> MelPicture:
    """Draw a whole track.

    Args:
        path: the file.
        compute: where the spectrogram is computed.

    Raises:
        AudioError: if the file can't be heard.
    """
    with open_audio(path) as stream:
        mix = Downmix()
        mel = np.concatenate(list(_mels(stream, compute, mix)))  # (frames, bands)
        if mix.settle():
            mel = np.concatenate(list(_mels(stream, compute, mix)))
        problem = stream.problem
    columns = min(_WIDTH, len(mel))
    picture = np.stack([part.mean(axis=0) for part in np.array_split(mel, columns)], axis=1)[::-1]  # high bands on top
    low, high = np.percentile(picture, (5, 99.5))
    level = np.clip((picture - low) / max(high - low, 1e-6), 0, 1)
    return MelPicture(_coloured(np.repeat(level, _PIXELS_A_BAND, axis=0)), problem)


def _mels(stream: AudioStream, compute: ComputeThread, mix: Downmix) -> Iterator[npt.NDArray[np.float32]]:
    """The spectrogram a minute at a time, so that an hour needs no gigabyte; one frame a minute is drawn twice."""
    mix.start(num_channels=stream.num_channels, rate_hz=stream.rate_hz)
    resampler, waiting, size = ResampleStream(stream.rate_hz, RATE_HZ), [np.zeros(0, np.float32)], 0
    for block in stream:
        waiting.append(resampler.feed(mix.select(block).mean(axis=0, keepdims=True))[0])
        size += waiting[-1].size
        if size >= _PIECE_S * RATE_HZ:
            yield compute.run(partial(_mel, np.concatenate(waiting)))
            waiting, size = [np.zeros(0, np.float32)], 0
    yield compute.run(partial(_mel, np.concatenate([*waiting, resampler.finish()[0]])))


@torch.inference_mode()
def _mel(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return _log_mel()(torch.from_numpy(samples)).numpy()  # type: ignore[no-any-return]


@cache
def _log_mel() -> LogMel:
    return LogMel(read_musicnn_weights().tensors["mel_filters"])


def _coloured(level: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level, places, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)
