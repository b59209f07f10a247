"""What the page shows besides text: its style and scripts, and the mel spectrogram of a track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mu_llama.audio.downmix import Downmix
from mu_llama.audio.read import AudioStream, open_audio
from mu_llama.audio.resample import ResampleStream
from mu_llama.inference.listener import Listener

_PART_S = 60
_WIDTH, _PIXELS_PER_BAND = 900, 2
# Dark blue over red to yellow; the brightness rises too, for people who can't tell the colours apart.
_COLOURS = np.array([(8, 8, 32), (60, 16, 110), (160, 40, 110), (235, 100, 60), (252, 190, 70), (252, 253, 190)])

CSS = """
.gradio-container {max-width: 1200px !important; margin: 0 auto !important}
footer {display: none !important}
#room {display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); grid-template-rows: auto 1fr;
  grid-template-areas: "track talk" "details talk"}
#track-side {grid-area: track} #talk-side {grid-area: talk} #details-side {grid-area: details}
#heard {font-size: 0.9em}
#picture img {image-rendering: auto; object-fit: fill; width: 100%}
@media (max-width: 768px) {#room {grid-template-columns: minmax(0, 1fr); grid-template-rows: auto;
  grid-template-areas: "track" "talk" "details"}}
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
"""Runs before a question is sent: it empties the box for the next question while this one may be queued."""

_PLAIN_TOASTS = """
() => {
  const messages = [
    [/^Invalid file type: (.*)\\. Only .*/s, name => `${name} is no audio file; give a WAV, MP3, FLAC or the like.`],
    [/^File\\(s\\) exceed the maximum.*: "(.*)"/s, name => `${name} has more than MAX MB; cut or compress it.`],
  ];
  new MutationObserver(() => document.querySelectorAll('[data-testid=toast-text]').forEach(toast => {
    for (const [pattern, plain] of messages) {
      const match = toast.textContent.match(pattern);
      if (match) toast.textContent = plain(match[1]);
    }
  })).observe(document.body, {childList: true, subtree: true});
}
"""


def plain_toasts(max_mb: int) -> str:
    """A script that replaces the text of gradio's own upload errors by a sentence that says what to do.

    Args:
        max_mb: size of the largest file, in megabytes.
    """
    return _PLAIN_TOASTS.replace("MAX", str(max_mb))


@dataclass(frozen=True, eq=False)
class MelPicture:
    """A track as a picture."""

    image: npt.NDArray[np.uint8]
    """RGB of shape (192, up to 900, 3): time to the right, pitch upwards."""
    problem: str | None
    """Which part of the file couldn't be read, in a sentence; None where all could."""


def mel_picture(path: Path, listener: Listener) -> MelPicture:
    """Draw a whole track.

    Args:
        path: the file.
        listener: computes the spectrogram.

    Raises:
        AudioError: if the file can't be read.
    """
    with open_audio(path) as stream:
        mix = Downmix()
        mel = np.concatenate(list(_mels(stream, listener, mix)))  # (frames, bands)
        if mix.settle():
            mel = np.concatenate(list(_mels(stream, listener, mix)))
        problem = stream.problem
    columns = min(_WIDTH, len(mel))
    picture = np.stack([part.mean(axis=0) for part in np.array_split(mel, columns)], axis=1)[::-1]  # high bands on top
    low, high = np.percentile(picture, (5, 99.5))
    level = np.clip((picture - low) / max(high - low, 1e-6), 0, 1)
    return MelPicture(_coloured(np.repeat(level, _PIXELS_PER_BAND, axis=0)), problem)


def _mels(stream: AudioStream, listener: Listener, mix: Downmix) -> Iterator[npt.NDArray[np.float32]]:
    """The spectrogram a minute at a time, so that an hour needs no gigabyte; one frame a minute is drawn twice."""
    mix.start(num_channels=stream.num_channels, rate_hz=stream.rate_hz)
    rate_hz = listener.log_mel_rate_hz
    resampler, pending, size = ResampleStream(stream.rate_hz, rate_hz), [np.zeros(0, np.float32)], 0
    for block in stream:
        pending.append(resampler.feed(mix.select(block).mean(axis=0, keepdims=True))[0])
        size += pending[-1].size
        if size >= _PART_S * rate_hz:
            yield listener.log_mel(np.concatenate(pending))
            pending, size = [np.zeros(0, np.float32)], 0
    yield listener.log_mel(np.concatenate([*pending, resampler.finish()[0]]))


def _coloured(level: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    positions = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level, positions, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)
