"""Changes to sound that real life makes: level, equaliser, noise, a telephone's band."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from mu_llama.audio.waveform import Samples, Waveform
from mu_llama.errors import ConfigError

Augment = Callable[[Waveform, random.Random], Waveform]
"""Changes a window of sound by chance; the result has the same rate and length."""

_CHANCE = 0.5
_LEVEL_DB = (-12.0, 6.0)
_BAND_GAIN_DB = 8.0
_LOWEST_BAND_HZ = 60.0
_SIGNAL_TO_NOISE_DB = (15.0, 40.0)
_PHONE_HZ = (300.0, 3400.0)


def change_level(window: Waveform, rng: random.Random) -> Waveform:
    """Scale by -12 to +6 dB; what leaves [-1, 1] is clipped, as a converter would."""
    gain = 10 ** (rng.uniform(*_LEVEL_DB) / 20)
    return Waveform(np.clip(window.samples * np.float32(gain), -1, 1), window.rate_hz)


def equalise(window: Waveform, rng: random.Random) -> Waveform:
    """Raise or lower each octave from 60 Hz by up to 8 dB, with straight lines between on a logarithmic scale."""
    num_bands = max(2, int(np.log2(window.rate_hz / 2 / _LOWEST_BAND_HZ)) + 1)
    gains_db = [rng.uniform(-_BAND_GAIN_DB, _BAND_GAIN_DB) for _ in range(num_bands)]
    centres = np.log2(_LOWEST_BAND_HZ) + np.arange(num_bands)

    def gain(frequency_hz: Samples) -> Samples:
        decibels = np.interp(np.log2(np.maximum(frequency_hz, 1.0)), centres, gains_db)
        return np.asarray(10 ** (decibels / 20), dtype=np.float32)

    return _filtered(window, gain)


def add_noise(window: Waveform, rng: random.Random) -> Waveform:
    """Add white noise 15 to 40 dB below the sound."""
    level = float(np.sqrt(np.mean(window.samples**2))) * 10 ** (-rng.uniform(*_SIGNAL_TO_NOISE_DB) / 20)
    noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(window.samples.size, dtype=np.float32)
    return Waveform(window.samples + noise * np.float32(level), window.rate_hz)


def through_a_phone(window: Waveform, rng: random.Random) -> Waveform:
    """Keep what a telephone lets through, 300 to 3400 Hz; its edges move by up to a quarter."""
    low, high = (edge * rng.uniform(0.75, 1.25) for edge in _PHONE_HZ)

    def gain(frequency_hz: Samples) -> Samples:
        below = np.maximum(frequency_hz, 1.0) / low
        above = np.maximum(frequency_hz, 1.0) / high
        # Fourth-order Butterworth magnitudes.
        return np.asarray(1 / np.sqrt((1 + below**-8.0) * (1 + above**8.0)), dtype=np.float32)

    return _filtered(window, gain)


AUGMENTATIONS: dict[str, Augment] = {
    "level": change_level,
    "equaliser": equalise,
    "noise": add_noise,
    "phone": through_a_phone,
}
"""By the name that settings use."""


def chain(names: Sequence[str]) -> Augment:
    """Put augmentations behind one another, each used half the time.

    Raises:
        ConfigError: for a name that `AUGMENTATIONS` doesn't have.

    Example:
        >>> window = Waveform(np.full(8000, 0.5, dtype=np.float32), 16000)
        >>> chain(["level", "noise"])(window, random.Random(0)).duration_s
        0.5
    """
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise ConfigError(f"augmentation {unknown[0]!r} is unknown; expected some of: {', '.join(AUGMENTATIONS)}")

    def augment(window: Waveform, rng: random.Random) -> Waveform:
        for name in names:
            if rng.random() < _CHANCE:
                window = AUGMENTATIONS[name](window, rng)
        return window

    return augment


def _filtered(window: Waveform, gain: Callable[[Samples], Samples]) -> Waveform:
    """Multiply the spectrum (zero phase) by a gain per frequency in Hz."""
    size = window.samples.size
    spectrum = np.fft.rfft(window.samples, n=2 * size)  # as long again, so that the end doesn't leak into the start
    frequency_hz = np.fft.rfftfreq(2 * size, 1 / window.rate_hz).astype(np.float32)
    changed = np.fft.irfft(spectrum * gain(frequency_hz))[:size]
    return Waveform(changed.astype(np.float32), window.rate_hz)
