"""Measures a track: the one function that everything else calls."""

from __future__ import annotations

import numpy as np

from mu_llama.audio.facts.fact import Facts
from mu_llama.audio.facts.key import measure_key
from mu_llama.audio.facts.libraries import load_libraries, quiet
from mu_llama.audio.facts.sound import RATE_HZ, read_sound
from mu_llama.audio.facts.tempo import measure_tempo
from mu_llama.audio.source import AudioSource
from mu_llama.audio.waveform import Waveform

_LEAST_SECONDS = 4.0
_SILENT_PEAK = 1e-4


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
    if samples.size < _LEAST_SECONDS * RATE_HZ or float(np.abs(samples).max()) < _SILENT_PEAK:
        return Facts(sound.length_s, None, None, None)
    with quiet():
        tempo = measure_tempo(libraries.librosa, samples, RATE_HZ)
        key = measure_key(libraries, samples, RATE_HZ)
    return Facts(sound.length_s, tempo, key, sound.loudness)
