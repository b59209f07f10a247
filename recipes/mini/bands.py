"""Group A: a band plays a groove of Debian's `mma` (Musical MIDI Accompaniment) over our chords."""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

from recipes.mini.instruments import HAND_PERCUSSION, PLAIN_NAMES, SOLOISTS
from recipes.mini.notes import DRUM_CHANNEL, Note, facts, read_midi, write_midi
from recipes.mini.plans import (
    Labels,
    Plan,
    Split,
    default_work_dir,
    font_of,
    made_of,
    scaled,
    seeded,
    split_of,
    write_plans,
)
from recipes.mini.progressions import Progression, bass_and_chords, choose_progression, lead_line

# Clips wanted, and the share of them that play without drums.
AMOUNTS: dict[Split, tuple[int, float]] = {"train": (1800, 1 / 3), "val": (100, 1 / 2), "test": (300, 1 / 2)}
_MMA = Path("packages/mma/usr/share/mma")
_LICENCE = "GPL-2+ (MMA groove)"
_DRUM_MACHINE = "zoom/"  # grooves of this folder have drums only: they get a bass and a guitar
_LENGTH_S = 32.0
_LONGEST_S = 600  # of planning a song; usually half a second, but a busy or sleeping machine can take long
# Families that nobody would name without the drums: their drumless songs get no style.
_KNOWN_BY_DRUMS = frozenset({
    "rock", "rock and roll", "heavy metal", "punk rock", "ska", "reggae", "funk", "disco", "hip-hop",
    "techno", "trance", "house", "drum and bass", "dance pop", "samba", "salsa and Afro-Cuban",
    "cha-cha", "calypso",
})  # fmt: skip


@dataclass(frozen=True)
class Groove:
    """One main groove: neither introduction nor ending nor fill."""

    file: str
    name: str
    style: str
    slow_bpm: int
    fast_bpm: int
    beats: int
    """Beats a bar, as MMA counts them."""
    meter: str

    @property
    def split(self) -> Split:
        """All of `kara/` is test; the rest by hash of the file."""
        return "test" if self.file.startswith("kara/") else split_of(f"groove:{self.file}")


def _meter(text: str) -> tuple[int, str] | None:
    """Read beats a bar and meter; None when a file has several or a compound one (its tempo is unclear)."""
    beats = {int(n) for n in re.findall(r"(?im)^\s*time\s+(\d+)", text)}
    signs = {(int(a), int(b)) for a, b in re.findall(r"(?im)^\s*timesig\s+(\d+)[ /]+(\d+)", text)}
    if len(beats) != 1 or len(signs) > 1 or not beats <= {3, 4, 5}:
        return None
    (num,) = beats
    return None if signs and signs != {(num, 4)} else (num, f"{num}/4")


def read_grooves(work_dir: Path) -> list[Groove]:
    """Read the groove names of every library file that `styles.tsv` puts in a style family."""
    grooves = []
    with (Path(__file__).parent / "styles.tsv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            for file in row["groove_files"].split():
                text = (work_dir / _MMA / "lib" / f"{file}.mma").read_text(encoding="latin-1")
                meter = _meter(text)
                names = re.findall(r"(?im)^\s*defgroove\s+(\S+)", text)
                main = [n for n in names if not re.search(r"(?i)(intro|end|ending|fill|break)\d*$", n)]
                slow, fast = int(row["slow_bpm"]), int(row["fast_bpm"])
                if meter:
                    grooves += [Groove(file, n, row["family"], slow, fast, *meter) for n in main]
    return grooves


def play_groove(work_dir: Path, groove: Groove, bpm: int, chords: list[str]) -> list[Note]:
    """Let MMA play one bar a chord, once; no notes when MMA refuses the groove."""
    lines = [f"Tempo {bpm}", f"Use {groove.file}", f"Groove {groove.name}"]
    lines += [f"{number} {chord}" for number, chord in enumerate(chords, start=1)]
    lines.insert(0, f"RndSeed {seeded(*lines).randrange(10**6)}")  # else MMA plays it anew each time
    song = "\n".join(lines) + "\n"
    played = work_dir / "grooves" / f"{hashlib.sha256(song.encode()).hexdigest()[:24]}.mid"
    if not played.exists():
        played.parent.mkdir(parents=True, exist_ok=True)
        part = played.with_suffix(f".{os.getpid()}.part")  # bands and voices may want the same at a time
        part.write_bytes(_played_by_mma(song, work_dir.resolve() / _MMA))
        part.replace(played)
    return read_midi(played) if played.stat().st_size else []


def _played_by_mma(song: str, home: Path) -> bytes:
    """The MIDI file of a song; empty when MMA refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        source, midi = Path(folder, "song.mma"), Path(folder, "song.mid")
        source.write_text(song, encoding="utf-8")
        command = ["python3", str(home / "../../bin/mma"), str(source), "-f", str(midi)]
        environment = {**os.environ, "MMA_HOME": str(home)}
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=_LONGEST_S)
        return midi.read_bytes() if done.returncode == 0 and midi.exists() else b""


def _is_percussion(note: Note) -> bool:
    return note.channel == DRUM_CHANNEL or PLAIN_NAMES.get(note.program) == HAND_PERCUSSION


def _arrange(
    notes: list[Note], groove: Groove, progression: Progression, *, bpm: int, drums: bool, rng: Random
) -> tuple[list[Note], Labels] | None:
    """Take drums away or add players; None when too little is left."""
    bar_s, labels = groove.beats * 60 / bpm, {}
    if not drums:
        notes = [n for n in notes if not _is_percussion(n)]
    free = sorted(set(range(16)) - {DRUM_CHANNEL} - {n.channel for n in notes})
    pitched = {PLAIN_NAMES.get(n.program, "") for n in notes if not _is_percussion(n)} - {""}
    if len(free) < 3 or (not drums and not pitched):
        return None
    if groove.file.startswith(_DRUM_MACHINE) and len(pitched) < 2:
        notes = notes + bass_and_chords(
            progression, bar_s, groove.beats, channels=free[:2], style=groove.style, rng=rng
        )
    if rng.random() < 0.5:
        soloist = rng.choice([s for s in SOLOISTS if s.name not in pitched])
        notes = notes + lead_line(progression, bar_s, groove.beats, channel=free[2], soloist=soloist, rng=rng)
        labels["lead"] = soloist.name
    return sorted(notes, key=lambda n: n.start_s), labels


def _make(work_dir: Path, groove: Groove, clip_id: str, drums: bool) -> Plan | None:
    """Make one song's MIDI file and plan; None when this groove can't give what is asked."""
    rng = seeded("band", clip_id, groove.file, groove.name)
    if groove.file.startswith(_DRUM_MACHINE) and not drums:
        return None
    bpm = rng.randint(groove.slow_bpm, groove.fast_bpm)
    num_bars = int(_LENGTH_S * bpm / 60 / groove.beats) + 1
    progression = choose_progression(groove.style, num_bars, rng)
    notes = play_groove(work_dir, groove, bpm, progression.names)
    arranged = _arrange(notes, groove, progression, bpm=bpm, drums=drums, rng=rng) if notes else None
    if arranged is None or facts(arranged[0], _LENGTH_S / 3)["drums"] is not drums:
        return None
    path = Path("midi/A") / f"{clip_id}.mid"
    write_midi(work_dir / path, arranged[0])
    style = None if groove.style in _KNOWN_BY_DRUMS and not drums else groove.style
    labels = {
        **arranged[1], "style": style, "tempo_bpm": bpm, "meter": groove.meter,
        "key": progression.key, "mode": progression.mode,
    }  # fmt: skip
    work, font = f"groove:{groove.file}", font_of(clip_id, groove.split)
    return Plan(clip_id, "A", work, groove.split, path.as_posix(), _LICENCE, font, None, labels)


def _in_turn(grooves: list[Groove], split: Split) -> list[Groove]:
    """Order a split's grooves so that style families alternate, then files, then grooves; several rounds."""
    families: dict[str, dict[str, list[Groove]]] = {}
    for groove in grooves:
        if groove.split == split:
            families.setdefault(groove.style, {}).setdefault(groove.file, []).append(groove)
    rng, order = seeded("band order", split), []
    for turn in range(60):
        for family in sorted(families):
            file = sorted(families[family])[turn % len(families[family])]
            order.append(rng.choice(families[family][file]))
    return order


def make_plans(work_dir: Path) -> None:
    """Make the band songs of all splits."""
    home = work_dir.resolve() / _MMA
    command = ["python3", str(home / "../../bin/mma"), "-G"]
    subprocess.run(command, env={**os.environ, "MMA_HOME": str(home)}, capture_output=True, check=True)
    grooves, plans = read_grooves(work_dir), []
    print(f"A: {len(grooves)} main grooves in {len({g.file for g in grooves})} files")
    for split, (num_clips, share_drumless) in made_of(AMOUNTS):
        num_clips = scaled(num_clips)
        num_drumless = round(num_clips * share_drumless)
        wanted = {False: num_drumless, True: num_clips - num_drumless}
        rng = seeded("band drums", split)
        for groove in _in_turn(grooves, split):
            left = [kind for kind in (True, False) for _ in range(wanted[kind])]
            if not left:
                break
            drums = rng.choice(left)
            plan = _make(work_dir, groove, f"A-{split}-{num_clips - len(left):04d}", drums)
            if plan is not None:
                plans.append(plan)
                wanted[drums] -= 1
        print(f"A: {split} made, {sum(wanted.values())} missing", flush=True)
    write_plans(work_dir, "A", plans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    make_plans(parser.parse_args().work)
