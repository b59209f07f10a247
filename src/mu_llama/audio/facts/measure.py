"""Measures a track in one pass: a mono signal for tempo and key, the loudness of its channels, its length."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mu_llama.audio.downmix import Downmix
from mu_llama.audio.facts.fact import Fact, Facts
from mu_llama.audio.facts.key import measure_key
from mu_llama.audio.facts.libraries import Libraries, load_libraries, quiet
from mu_llama.audio.facts.loudness import LoudnessMeter
from mu_llama.audio.facts.tempo import measure_tempo
from mu_llama.audio.read import AudioStream, AudioWarning, check_range, open_audio
from mu_llama.audio.resample import ResampleStream
from mu_llama.audio.source import AudioSource
from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.errors import AudioError

RATE_HZ = 22050
MAX_MEASURED_S = 180.0
_BLOCK_SAMPLES = 2**15
_LOWEST_HZ = 20.0
"""Corner frequency of the high-pass filter: lower frequencies are inaudible."""


@dataclass(frozen=True)
class MeasuredSound:
    """What facts are measured on."""

    samples: Samples
    """Mono at RATE_HZ, high-passed at 20 Hz: the mean of the channels, or the loudest where they cancel each other."""
    loudness: Fact | None
    """Integrated loudness of all channels; None where it's below the standard's gate."""
    length_s: float
    """Length of the whole track, whatever part of it is measured."""


def read_sound(
    libraries: Libraries, audio: AudioSource | Waveform, *, offset_s: float, duration_s: float | None
) -> MeasuredSound:
    """Read up to three minutes; the source is opened once, and memory doesn't grow with its length.

    Raises:
        AudioError: if it can't be decoded.
    """
    duration_s = MAX_MEASURED_S if duration_s is None else min(duration_s, MAX_MEASURED_S)
    if isinstance(audio, Waveform):
        check_range(offset_s, duration_s)
        blocks, names = list(_blocks(audio, offset_s, duration_s)), ("FC",)
        samples, meter = _measure(libraries, blocks, audio.rate_hz, names, Downmix())
        return MeasuredSound(samples, meter.fact(), audio.duration_s)
    with open_audio(audio, offset_s=offset_s, duration_s=duration_s) as stream:
        mix = Downmix()
        mix.start(num_channels=stream.num_channels, rate_hz=stream.rate_hz)
        samples, meter = _measure(libraries, stream, stream.rate_hz, stream.channel_names, mix)
        length_s = stream.measured_length_s()
        if mix.settle():
            samples = _one_channel(libraries, stream, mix)
    return MeasuredSound(samples, meter.fact(), length_s)


def _measure(
    libraries: Libraries, blocks: Iterable[Samples], rate_hz: int, names: tuple[str, ...], mix: Downmix
) -> tuple[Samples, LoudnessMeter]:
    """Return the mean of the channels at RATE_HZ, and the loudness meter after all blocks."""
    meter, mono = LoudnessMeter(libraries, rate_hz, names), _MonoSignal(libraries, rate_hz)
    for block in blocks:
        meter.feed(block)
        mono.feed(mix.select(block).mean(axis=0, keepdims=True))
    return mono.finish(), meter


def _one_channel(libraries: Libraries, stream: AudioStream, mix: Downmix) -> Samples:
    """Decode again, for the channel that was selected."""
    mono = _MonoSignal(libraries, stream.rate_hz)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)  # given in the first pass
        for block in stream:
            mono.feed(mix.select(block))
    return mono.finish()


class _MonoSignal:
    """One channel, resampled, high-passed at 20 Hz, so that a constant offset is removed."""

    def __init__(self, libraries: Libraries, rate_hz: int) -> None:
        self._signal = libraries.signal
        self._sections = libraries.signal.butter(2, _LOWEST_HZ, "highpass", fs=rate_hz, output="sos")
        self._state: Samples | None = None
        self._resampler = ResampleStream(rate_hz, RATE_HZ)
        self._parts: list[Samples] = []

    def feed(self, block: Samples) -> None:
        """Take a block (1, n)."""
        if self._state is None:  # the filter starts settled, as after a long run of the first sample
            self._state = self._signal.sosfilt_zi(self._sections)[:, None, :] * float(block[0, 0])
        filtered, self._state = self._signal.sosfilt(self._sections, block, axis=1, zi=self._state)
        self._parts.append(self._resampler.feed(filtered.astype(np.float32)))

    def finish(self) -> Samples:
        """Return the whole signal, of shape (S,)."""
        samples: Samples = np.concatenate([*self._parts, self._resampler.finish()], axis=1)[0]
        return samples


def _blocks(wave: Waveform, offset_s: float, duration_s: float) -> Iterator[Samples]:
    first = round(offset_s * wave.rate_hz)
    last = min(wave.samples.size, first + max(1, round(duration_s * wave.rate_hz)))
    if first >= last:
        raise AudioError(f"the waveform has no sound at offset {offset_s:g} s; choose an offset before its end")
    for start in range(first, last, _BLOCK_SAMPLES):
        yield wave.samples[None, start : min(last, start + _BLOCK_SAMPLES)]


_MIN_SECONDS = 4.0
_SILENT_PEAK = 1e-4
"""Peak amplitude (-80 dBFS) below which a track counts as silent."""


def measure_facts(audio: AudioSource | Waveform, *, offset_s: float = 0.0, duration_s: float | None = None) -> Facts:
    """Measure up to three minutes of a track.

    Args:
        audio: path, bytes, binary file (seekable or not; it is opened once) or waveform.
        offset_s: where measuring starts.
        duration_s: how much is measured; None is up to the end, and three minutes at most.

    Raises:
        AudioError: if it can't be decoded.
        ConfigError: if librosa or pyloudnorm isn't installed.
    """
    libraries = load_libraries()
    sound = read_sound(libraries, audio, offset_s=offset_s, duration_s=duration_s)
    samples = sound.samples
    if samples.size < _MIN_SECONDS * RATE_HZ or float(np.abs(samples).max()) < _SILENT_PEAK:
        return Facts(sound.length_s, None, None, None)
    with quiet():
        tempo = measure_tempo(libraries.librosa, samples, RATE_HZ)
        key = measure_key(libraries, samples, RATE_HZ)
    return Facts(sound.length_s, tempo, key, sound.loudness)
