"""Play notes with TiMidity++ and the instruments of FreePats, which other people recorded than the soundfonts'."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile

from recipes.mini.instruments import PLAIN_NAMES
from recipes.mini.notes import DRUM_CHANNEL, Note, inside, write_midi
from recipes.mini.plans import CLIP_S, RATE_HZ

_CONFIG = "freepats/etc/timidity/freepats.cfg"
_PATCHES = "freepats/usr/share/midi/freepats"


class PatchPlayer:
    """Plays excerpts of note lists, as `fluidsynth.Player` does.

    Args:
        packages: folder with the unpacked packages `timidity` and `freepats`.
    """

    def __init__(self, packages: Path) -> None:
        self._packages = packages.resolve()

    @cached_property
    def _patches(self) -> str:
        """FreePats' own configuration, for where it was unpacked."""
        text = re.sub(r"(?m)^\s*dir\s.*$", "", (self._packages / _CONFIG).read_text(encoding="latin-1"))
        return f"dir {self._packages / _PATCHES}\n{text}"

    @cached_property
    def _programs(self) -> frozenset[int]:
        return frozenset(int(number) for number in re.findall(r"(?m)^\s*(\d+)\s+Tone_000/", self._patches))

    @cached_property
    def _libraries(self) -> str:
        folders = {path.parent for path in (self._packages / "timidity").rglob("*.so*")}
        return os.pathsep.join(map(str, sorted(folders)))

    def playable(self, notes: list[Note]) -> list[Note]:
        """Put programs that are there in the place of others; no notes if one has no stand-in."""
        programs: dict[int, int] = {}
        for program in {n.program for n in notes if n.channel != DRUM_CHANNEL}:
            name = PLAIN_NAMES.get(program)
            alike = [p for p in sorted(self._programs) if name is not None and PLAIN_NAMES.get(p) == name]
            if program not in self._programs and not alike:
                return []
            programs[program] = program if program in self._programs else min(alike, key=lambda p: abs(p - program))
        return [n if n.channel == DRUM_CHANNEL else replace(n, program=programs[n.program]) for n in notes]

    def play(self, notes: list[Note], start_s: float, length_s: float = CLIP_S) -> np.ndarray:
        """Play `length_s` seconds from `start_s`: float32 (S,), 16 kHz, not yet scaled."""
        excerpt = [
            replace(n, start_s=max(n.start_s - start_s, 0.0), end_s=min(n.end_s - start_s, length_s))
            for n in inside(notes, start_s, length_s)
        ]
        with tempfile.TemporaryDirectory() as folder:
            config, midi, wave = (Path(folder, name) for name in ("patches.cfg", "song.mid", "song.wav"))
            config.write_text(self._patches, encoding="latin-1")
            write_midi(midi, excerpt)
            program = self._packages / "timidity/usr/bin/timidity"
            command = [program, "-c", config, "-Ow1Msl", "-s", str(RATE_HZ), "-o", wave, midi]
            environment = {**os.environ, "LD_LIBRARY_PATH": self._libraries}
            subprocess.run(command, env=environment, capture_output=True, check=True, timeout=120)
            sound, _ = soundfile.read(wave, dtype="float32")
        size = round(length_s * RATE_HZ)
        return np.pad(sound, (0, max(0, size - len(sound))))[:size]
