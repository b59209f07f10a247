"""Play notes with libfluidsynth 2 from an unpacked Debian package, in process, each soundfont loaded once.

The PyPI package `tinysoundfont` ignores modulators: MuseScore_General's pianos come out 35 dB too quiet.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from random import Random

import numpy as np
import soxr

from recipes.mini.notes import DRUM_CHANNEL, Note, inside
from recipes.mini.plans import CLIP_S, RATE_HZ

_SYNTH_HZ = 44_100  # the fonts' own rate
_LEAD_IN_S = 1.0  # played and thrown away, so that notes already held sound as they should
_FAILED = -1
# Generators of the SoundFont 2.04 standard, section 8.1.2, with what is added to the font's own value, and its unit.
_SHADES: dict[int, tuple[float, float]] = {
    6: (0.0, 15.0),  # vibrato to pitch, cents
    8: (-3000.0, 0.0),  # cut-off of the low-pass filter, cents
    9: (0.0, 60.0),  # its resonance, 0.1 dB
    15: (0.0, 300.0),  # chorus, 0.1 %
    16: (0.0, 400.0),  # reverberation, 0.1 %
    34: (0.0, 3000.0),  # attack, timecents
    36: (-1800.0, 1200.0),  # decay, timecents
    38: (-1200.0, 1800.0),  # release, timecents
    52: (-8.0, 8.0),  # tuning, cents
}
_NUM_CHANNELS = 16
_SHADED_SHARE = 0.6


def _load_library(package: Path) -> ctypes.CDLL:
    """Load libfluidsynth with the libraries that were unpacked beside it.

    A library loads once those it needs are loaded, so the folder is gone through until nothing is gained.
    """
    waiting = sorted(package.rglob("*.so*"))
    gained = True
    while gained:
        gained = False
        for path in list(waiting):
            try:
                library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            waiting.remove(path)
            gained = True
            if path.name == "libfluidsynth.so.3":
                return library
    raise FileNotFoundError(f"{package} has no libfluidsynth.so.3 that loads; delete it and run fetch.py")


class Player:
    """One soundfont that plays excerpts of note lists."""

    def __init__(self, font: Path, package: Path) -> None:
        self._library = lib = _load_library(package)
        for name in ("new_fluid_settings", "new_fluid_synth"):
            getattr(lib, name).restype = ctypes.c_void_p
        settings = ctypes.c_void_p(lib.new_fluid_settings())
        lib.fluid_settings_setnum(settings, b"synth.sample-rate", ctypes.c_double(_SYNTH_HZ))
        lib.fluid_settings_setint(settings, b"synth.dynamic-sample-loading", 1)
        self._synth = ctypes.c_void_p(lib.new_fluid_synth(settings))
        self._font_id = lib.fluid_synth_sfload(self._synth, str(font).encode(), 1)
        if self._font_id == _FAILED:
            raise FileNotFoundError(f"soundfont {font} can't be loaded; run fetch.py")

    def play(
        self, notes: list[Note], start_s: float, length_s: float = CLIP_S, *, shading: Random | None = None
    ) -> np.ndarray:
        """Play `length_s` seconds from `start_s`.

        Args:
            notes: what is played.
            start_s: from where.
            length_s: how long.
            shading: shades each channel's sound another way (filter, envelope, effects); None plays the font as it is.

        Returns:
            float32 of shape (S,), 16 kHz, not yet scaled.
        """
        begin_s = start_s - _LEAD_IN_S
        events: list[tuple[float, int, Note]] = []
        for n in inside(notes, start_s, length_s):
            events += [(max(n.start_s - begin_s, 0.0), 1, n), (max(n.end_s - begin_s, 0.0), 0, n)]
        events.sort(key=lambda e: (e[0], e[1]))
        self._library.fluid_synth_system_reset(self._synth)
        if shading is not None:
            self._shade(shading)
        length = round((length_s + _LEAD_IN_S) * _SYNTH_HZ)
        sound, at, program = np.zeros((length, 2), np.float32), 0, [-1] * 16
        for when_s, is_on, n in events:
            at = self._run_to(sound, at, round(when_s * _SYNTH_HZ))
            if is_on and program[n.channel] != n.program:
                program[n.channel] = n.program
                bank, preset = (128, 0) if n.channel == DRUM_CHANNEL else (0, n.program)
                self._library.fluid_synth_program_select(self._synth, n.channel, self._font_id, bank, preset)
            if is_on:
                self._library.fluid_synth_noteon(self._synth, n.channel, n.pitch, n.velocity)
            else:
                self._library.fluid_synth_noteoff(self._synth, n.channel, n.pitch)
        self._run_to(sound, at, length)
        mono = sound[round(_LEAD_IN_S * _SYNTH_HZ) :].mean(axis=1)
        return np.asarray(soxr.resample(mono, _SYNTH_HZ, RATE_HZ), np.float32)

    def _shade(self, rng: Random) -> None:
        for channel in range(_NUM_CHANNELS):
            for generator, (low, high) in _SHADES.items():
                value = ctypes.c_float(rng.uniform(low, high) if rng.random() < _SHADED_SHARE else 0.0)
                self._library.fluid_synth_set_gen(self._synth, channel, generator, value)

    def _run_to(self, sound: np.ndarray, at: int, to: int) -> int:
        """Fill `sound` (frames, 2) from frame `at` to frame `to`; give where it now stands."""
        to = min(to, len(sound))
        if to > at:
            out = sound[at:to].ctypes.data_as(ctypes.c_void_p)
            self._library.fluid_synth_write_float(self._synth, to - at, out, 0, 2, out, 1, 2)
        return max(at, to)
