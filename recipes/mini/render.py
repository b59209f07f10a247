"""Plans to clips: play a 12 s excerpt of each MIDI file, or cut it from a recording, as 16 kHz mono FLAC."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import soundfile
import soxr

from recipes.mini.fluidsynth import Player
from recipes.mini.notes import choose_start, facts, read_midi, remixed, revoiced
from recipes.mini.plans import (
    CLIP_S,
    FONT_LICENCES,
    PATCHES,
    RATE_HZ,
    Labels,
    Plan,
    complete,
    default_work_dir,
    is_again,
    read_jsonl,
    read_plans,
    seeded,
    write_jsonl,
)
from recipes.mini.timidity import PatchPlayer

_SILENT_RMS = 10 ** (-50 / 20)
_PEAK = 0.89
_FLUSH_EVERY = 50
_TOGETHER = 16
_REMIXED = ("A", "D")
"""Groups of bands, half of whose training clips are mixed anew; labels follow the mix."""
_FONT_FILES = {
    "TimGM6mb": "packages/timgm6mb-soundfont/usr/share/sounds/sf2/TimGM6mb.sf2",
    "FluidR3_GM": "packages/fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "Sonivox": "packages/alphatab/package/dist/soundfont/sonivox.sf2",
    "MuseScore_General_Lite": (
        "packages/musescore-general-soundfont-small/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"
    ),
}


def cut(path: Path, start_s: float) -> np.ndarray:
    """Read 12 s of a recording from `start_s` as float32 (S,) at 16 kHz mono."""
    with soundfile.SoundFile(path) as file:
        file.seek(round(start_s * file.samplerate))
        sound = file.read(round(CLIP_S * file.samplerate), dtype="float32", always_2d=True).mean(axis=1)
        return np.asarray(soxr.resample(sound, file.samplerate, RATE_HZ), np.float32)


class Renderer:
    """Turns plans into audio files and clip records; keeps the soundfonts it has met."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._players: dict[str, Player] = {}
        self._patches = PatchPlayer(work_dir / "packages")
        self._playing = Lock()

    def render(self, plan: Plan) -> dict[str, Any] | None:
        """Make one clip; None when it is (nearly) silent, no excerpt sounds long enough or an instrument is missing."""
        source = self._work_dir / plan.source
        labels: Labels = {}
        if plan.soundfont is None:
            assert plan.start_s is not None
            sound = cut(source, plan.start_s)
        else:
            notes = read_midi(source)
            mixing = seeded("mix", plan.id)
            if plan.split == "train" and plan.group in _REMIXED and mixing.random() < 0.5:
                notes = remixed(notes, mixing)
            shading = seeded("shading", plan.id) if is_again(plan.id) else None
            if shading is not None:
                notes = revoiced(notes, shading)
            if plan.soundfont == PATCHES:
                notes = self._patches.playable(notes)
            start_s = choose_start(notes, seeded("excerpt", plan.id)) if plan.start_s is None else plan.start_s
            if start_s is None:
                return None
            labels = facts(notes, start_s)
            if plan.soundfont == PATCHES:
                sound = self._patches.play(notes, start_s)
            else:
                with self._playing:
                    sound = self.player(plan.soundfont).play(notes, start_s, shading=shading)
        sound = np.pad(sound, (0, max(0, round(CLIP_S * RATE_HZ) - len(sound))))[: round(CLIP_S * RATE_HZ)]
        if not np.isfinite(sound).all() or np.sqrt(np.mean(sound**2)) < _SILENT_RMS:
            return None
        if plan.voice is not None:
            sound = _mixed(sound, cut(self._work_dir / plan.voice, 0.0), plan.voice_gain_db)
        peak = float(np.abs(sound).max())
        if plan.soundfont is not None or peak > _PEAK:
            sound = sound * (_PEAK / peak)
        path = Path("audio") / plan.group / f"{plan.id}.flac"
        _write_flac(self._work_dir / path, sound)
        labels |= plan.labels
        if labels.get("lead") not in labels.get("instruments", []):
            labels["lead"] = None  # the tune rests in this excerpt
        return _record(plan, path, labels)

    def player(self, font: str) -> Player:
        """The player of a soundfont, loaded once."""
        if font not in self._players:
            library = self._work_dir / "packages/fluidsynth"
            self._players[font] = Player(self._work_dir / _FONT_FILES[font], library)
        return self._players[font]


def _mixed(sound: np.ndarray, voice: np.ndarray, gain_db: float) -> np.ndarray:
    """Add a voice that is so much louder (by RMS) than what it sings over."""
    voice = np.pad(voice, (0, max(0, len(sound) - len(voice))))[: len(sound)]
    level = float(np.sqrt(np.mean(sound**2)) / max(np.sqrt(np.mean(voice**2)), 1e-6))
    return np.asarray(sound + voice * level * 10 ** (gain_db / 20), np.float32)


def _write_flac(path: Path, sound: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    soundfile.write(part, sound, RATE_HZ, format="FLAC", subtype="PCM_16")
    part.replace(path)


def _record(plan: Plan, path: Path, labels: Labels) -> dict[str, Any]:
    licence = plan.licence
    if plan.soundfont is not None:
        licence += f"; soundfont {FONT_LICENCES[plan.soundfont]}"
    return {
        "id": plan.id, "path": path.as_posix(), "group": plan.group, "work": plan.work, "split": plan.split,
        "soundfont": plan.soundfont, "licence": licence, "seconds": CLIP_S, "labels": complete(labels),
    }  # fmt: skip


def render_group(work_dir: Path, group: str) -> list[dict[str, Any]]:
    """Make the planned clips of a group that are not there yet; a rerun goes on where the last stopped."""
    out = work_dir / "clips" / f"{group}.jsonl"
    plans = read_plans(work_dir, group)
    done = {r["id"]: r for r in read_jsonl(out) if (work_dir / r["path"]).exists()}
    records = [done[plan.id] for plan in plans if plan.id in done]
    todo = [plan for plan in plans if plan.id not in done]
    todo.sort(key=lambda plan: (plan.soundfont or "", plan.id))
    began, skipped = time.monotonic(), 0
    renderer, pool = Renderer(work_dir), ThreadPoolExecutor(_TOGETHER)  # TiMidity++ sleeps a second after each song
    for first, last in pairwise([*range(0, len(todo), _FLUSH_EVERY), len(todo)]):
        made = list(pool.map(renderer.render, todo[first:last]))
        skipped += made.count(None)
        records += [record for record in made if record is not None]
        write_jsonl(out, records)
        took_s = time.monotonic() - began
        print(f"{group}: {last}/{len(todo)} rendered, {skipped} without sound, {took_s:.0f} s", flush=True)
    if not todo:
        write_jsonl(out, records)
    return records


def _main() -> Iterator[str]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="+", choices=list("ABCDEFN"))
    parser.add_argument("--work", type=Path, default=default_work_dir())
    options = parser.parse_args()
    for group in options.groups:
        yield f"{group}: {len(render_group(options.work, group))} clips"


if __name__ == "__main__":
    for line in _main():
        print(line)
