"""Makes the media files of the audio tests with PyAV's encoders and soundfile."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import soundfile

Array = np.ndarray


def music(seconds: float = 3.0, *, rate_hz: int = 44100, channels: int = 2) -> Array:
    """A different chord in each channel, slowly changing, without noise; float32 (C, S)."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    rows = [
        0.3 * np.sin(2 * np.pi * (220 + 110 * c) * t + np.sin(3 * t)) * (0.6 + 0.4 * np.sin(t)) for c in range(channels)
    ]
    return np.stack(rows).astype(np.float32)


def encoded(
    sound: Array,
    container: str,
    codec: str,
    *,
    rate_hz: int = 44100,
    layout: str = "stereo",
    options: dict[str, str] | None = None,
) -> bytes:
    """A file of one audio stream, as bytes."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout, options=options or {})
        _encode(output, stream, sound, rate_hz, layout)
    return file.getvalue()


def video(path: Path, *, sound: bool) -> Path:
    """A short MP4 with or without an audio track behind its picture."""
    with av.open(str(path), "w", format="mp4") as output:
        picture = output.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        audio = output.add_stream("aac", rate=44100, layout="stereo") if sound else None
        for index in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 8 * index, np.uint8), format="rgb24")
            for packet in picture.encode(frame):
                output.mux(packet)
        for packet in picture.encode(None):
            output.mux(packet)
        if audio is not None:
            _encode(output, audio, music(), 44100, "stereo")
    return path


def pcm(sound: Array, container: str, subtype: str, *, rate_hz: int = 44100) -> bytes:
    """A file written by libsndfile, as bytes."""
    file = io.BytesIO()
    soundfile.write(file, sound.T, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


def _encode(output, stream, sound: Array, rate_hz: int, layout: str) -> None:
    for start in range(0, sound.shape[1], 4096):
        packed = np.ascontiguousarray(sound[:, start : start + 4096].T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, start
        for packet in stream.encode(frame):
            output.mux(packet)
    for packet in stream.encode(None):
        output.mux(packet)
