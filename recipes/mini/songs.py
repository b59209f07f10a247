"""Group D: songs that came as MIDI: Freedoom's rock and metal, two games' music, piano lessons, OpenMSX's songs."""

from __future__ import annotations

import argparse
import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mido

from recipes.mini.notes import choose_start, read_midi, write_midi
from recipes.mini.plans import Labels, Plan, Split, default_work_dir, font_of, scaled, seeded, split_of, write_plans

_SHORTEST_NOTES = 40
_FREEDOOM = "packages/freedoom/usr/share/games/doom/freedoom1.wad"


@dataclass(frozen=True)
class Song:
    """One MIDI file."""

    name: str
    content: bytes
    work: str
    licence: str
    num_clips: int
    split: Split | None = None
    """None: by hash of the work."""


def wad_music(path: Path) -> Iterator[tuple[str, bytes]]:
    """Give the MIDI lumps of a Doom WAD: a directory of 16-byte entries (offset, size, name)."""
    data = path.read_bytes()
    _, num_lumps, at = struct.unpack_from("<4sii", data)
    seen: set[bytes] = set()
    for number in range(num_lumps):
        offset, size, raw = struct.unpack_from("<ii8s", data, at + 16 * number)
        lump = data[offset : offset + size]
        if lump[:4] == b"MThd" and lump not in seen:
            seen.add(lump)
            yield raw.rstrip(b"\0").decode("ascii"), lump


def _files(work_dir: Path, below: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted((work_dir / "packages" / below).rglob("*.mid*")):
        content = path.read_bytes()
        yield path.name.split(".")[0], gzip.decompress(content) if path.suffix == ".gz" else content


def _songs(work_dir: Path) -> Iterator[Song]:
    for name, content in wad_music(work_dir / _FREEDOOM):
        yield Song(name, content, f"freedoom:{name}", "BSD-3-Clause (Freedoom)", 6)
    for name, content in _files(work_dir, "planetblupi-music-midi/usr/share/planetblupi/music"):
        yield Song(name, content, f"blupi:{name}", "GPL-3+ (Planet Blupi)", 6)
    for name, content in _files(work_dir, "freedink-data/usr/share/games/dink/dink/Sound"):
        yield Song(name, content, f"dink:{name}", "see freedink-data's copyright file", 4)
    for name, content in _files(work_dir, "pianobooster/usr/share/doc/pianobooster/courses"):
        yield Song(name, content, f"pianobooster:{name[3:]}", "GPL-3+ (Piano Booster)", 3)
    for name, content in _files(work_dir, "openttd-openmsx/usr/share/games/openttd/baseset/openmsx"):
        yield Song(name, content, f"openmsx:{name}", "GPL-2 (OpenMSX)", 3, "test")


def _tempo(path: Path) -> float | None:
    """The tempo, where the file has one (within 2 %)."""
    tempi = [60e6 / m.tempo for track in mido.MidiFile(path, clip=True).tracks for m in track if m.type == "set_tempo"]
    return round(tempi[0], 1) if tempi and max(tempi) <= 1.02 * min(tempi) else None


def make_plans(work_dir: Path) -> None:
    """Write each song as we read it, and plans for several excerpts of it."""
    plans: list[Plan] = []
    songs = {song.work: song for song in _songs(work_dir)}  # piano lessons come twice
    for song in songs.values():
        raw = work_dir / "midi/D" / f"{song.work.replace(':', '_')}.raw.mid"
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_bytes(song.content)
        try:
            notes, tempo = read_midi(raw), _tempo(raw)
        except (OSError, ValueError, EOFError, KeyError, IndexError) as error:
            print(f"D: {song.work} can't be read: {error}")
            continue
        if len(notes) < _SHORTEST_NOTES or choose_start(notes, seeded("try", song.work)) is None:
            continue
        split = song.split or split_of(song.work)
        midi = Path("midi/D") / f"{song.work.replace(':', '_')}.mid"
        write_midi(work_dir / midi, notes)
        labels: Labels = {"tempo_bpm": tempo}
        for k in range(scaled(song.num_clips)):
            clip_id = f"D-{split}-{song.work.replace(':', '_')}-{k}"
            font = font_of(clip_id, split)
            plans.append(Plan(clip_id, "D", song.work, split, midi.as_posix(), song.licence, font, None, labels))
    write_plans(work_dir, "D", plans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    make_plans(parser.parse_args().work)
