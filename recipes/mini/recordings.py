"""Group F: excerpts of real recordings in Debian's packages, with what their makers say of them."""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mido
import soundfile

from recipes.mini.plans import CLIP_S, Labels, Plan, Split, default_work_dir, scaled, seeded, split_of, write_plans

_MARGIN_S = 4.0  # kept off the beginning and end of a track
_ELECTRONIC: Labels = {"style": "electronic game music", "acoustic": False}
_GAME: Labels = {"style": "game music"}
# Wesnoth tracks for which "orchestra" is doubtful: minstrels, a choir, a piece without the genre tag.
_NO_ORCHESTRA = frozenset({"traveling_minstrels", "elf-land", "frantic-old", "return_to_wesnoth"})
# track3_enhanced is held out, so the plain track3 can't be trained on; thunder is no music.
_LEFT_OUT = frozenset({"track3", "thunder"})


@dataclass(frozen=True)
class Track:
    """One recording."""

    path: Path
    work: str
    licence: str
    num_clips: int
    labels: Labels = field(default_factory=dict)
    split: Split | None = None
    """Null: by hash of the work."""


def _root(work_dir: Path, package: str, below: str) -> Path:
    return work_dir / "packages" / package / "usr/share/games" / below


def _tags(path: Path) -> Labels:
    """Read title and composer from the tags of an Ogg file."""
    with soundfile.SoundFile(path) as file:
        tags = file.copy_metadata()
    artist = tags.get("artist", "")
    return {"title": tags.get("title") or None, "composer": None if "://" in artist else artist or None}


def _wesnoth(work_dir: Path) -> Iterator[Track]:
    for path in sorted(_root(work_dir, "wesnoth-1.16-music", "wesnoth/1.16/data/core/music").glob("*.ogg")):
        orchestra = {"style": "orchestral game music", "ensemble": "orchestra", "solo": False}
        labels = _GAME if path.stem in _NO_ORCHESTRA else orchestra
        yield Track(path, f"wesnoth:{path.stem}", "GPL-2+", 10, {**labels, **_tags(path)})


def _warzone(work_dir: Path) -> Iterator[Track]:
    albums = _root(work_dir, "warzone2100-music", "warzone2100/music/albums")
    for album_file in sorted(albums.glob("*/album.json")):
        album = json.loads(album_file.read_text(encoding="utf-8"))
        for entry in album["tracks"]:
            path = album_file.parent / entry["filename"]
            if not path.exists() or path.stem in _LEFT_OUT:
                continue
            number = re.fullmatch(r"track(\d+)", path.stem)
            first_20 = number is not None and int(number[1]) <= 20
            composer = entry.get("author") or album["author"]
            labels = {**_ELECTRONIC, "title": entry.get("title"), "composer": composer}
            licence = "GPL-2+" if "original" in album_file.parent.name else "CC-BY-SA-3.0 or GPL-2+"
            yield Track(path, f"warzone:{path.stem}", licence, 10, labels, None if first_20 else "test")


def _unzipped(work_dir: Path, package: str, below: str) -> list[Path]:
    """Unpack a game's pk3 archive (a zip) once."""
    folder = work_dir / "unzipped" / package
    if not folder.exists():
        part = folder.with_suffix(".part")
        with zipfile.ZipFile(_root(work_dir, package, below)) as archive:
            archive.extractall(part, [name for name in archive.namelist() if name.endswith(".ogg")])
        part.replace(folder)
    return sorted(folder.rglob("*.ogg"))


def _nexuiz(work_dir: Path) -> Iterator[Track]:
    for path in _unzipped(work_dir, "nexuiz-music", "nexuiz/data/music.pk3"):
        if path.stem in _LEFT_OUT:
            continue
        work = "sixtyfour" if path.stem.startswith("sixtyfour") else path.stem
        yield Track(path, f"nexuiz:{work}", "GPL-2+", 10, {**_ELECTRONIC, **_tags(path)})


def _ufoai(work_dir: Path) -> Iterator[Track]:
    text = (work_dir / "packages/ufoai-music/usr/share/doc/ufoai-music/copyright").read_text(encoding="utf-8")
    licence_of: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", text):
        if licence := re.search(r"(?m)^License: *(.+)", paragraph):
            licence_of |= dict.fromkeys(re.findall(r"base/music/(\S+)", paragraph), licence[1])
    for path in _unzipped(work_dir, "ufoai-music", "ufoai/base/0music.pk3"):
        if path.stem.startswith("dynamictest"):
            continue
        artist = re.match(r"Crystan|Psymong", path.stem)
        labels = {**_GAME, **_tags(path)}
        labels["composer"] = labels["composer"] or (artist[0] if artist else None)
        split: Split | None = "test" if path.stem == "David03" else None
        yield Track(path, f"ufoai:{path.stem}", licence_of.get(path.name, "GPL-2+"), 6, labels, split)


def _supertux(work_dir: Path) -> Iterator[Track]:
    music = _root(work_dir, "supertux-data", "supertux2/music")
    for path in sorted(music.rglob("*.ogg")):
        stem = re.match(r"[a-z]+", path.stem)
        work = stem[0] if stem else path.stem
        work = "theme" if work in ("intro", "credits", "worldmap", "classic") else work
        if path.stem == "chipdisko":
            labels = {"style": "chiptune", "acoustic": False}
            yield Track(path, "supertux:chipdisko", "GPL-2+", 3, labels, "test")
        else:
            yield Track(path, f"supertux:{work}", "GPL-2+", 6, {**_GAME, **_tags(path)})
    rap = music.parent / "speech/tux_rap.ogg"
    yield Track(rap, "supertux:rap", "GPL-2+", 1, {"style": "hip-hop", "vocals": True}, "test")


def _fillets(work_dir: Path) -> Iterator[Track]:
    for path in sorted(_root(work_dir, "fillets-ng-data", "fillets-ng/music").glob("*.ogg")):
        yield Track(path, f"fillets:{path.stem}", "GPL-2+", 6, dict(_GAME))


def _mixed(work_dir: Path, folder: Path) -> Path:
    """Add a song's guitar stem to the rest of the band."""
    path = work_dir / "mixed" / f"{folder.parent.name}-{folder.name.replace(' ', '_')}.flac"
    if not path.exists():
        band, rate_hz = soundfile.read(folder / "song.ogg", dtype="float32", always_2d=True)
        guitar, guitar_hz = soundfile.read(folder / "guitar.ogg", dtype="float32", always_2d=True)
        if rate_hz != guitar_hz:
            raise ValueError(f"{folder}: stems at {rate_hz} and {guitar_hz} Hz; resample one first")
        num = min(len(band), len(guitar))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        soundfile.write(part, (band[:num] + guitar[:num]) / 2, rate_hz, format="FLAC")
        part.replace(path)
    return path


def _tempo(midi: Path) -> float | None:
    """Read the tempo of a song's note chart; null when it changes by more than 2 %."""
    tempi = [60e6 / m.tempo for track in mido.MidiFile(midi).tracks for m in track if m.type == "set_tempo"]
    return round(tempi[0], 1) if tempi and max(tempi) <= 1.02 * min(tempi) else None


def _frets_on_fire(work_dir: Path) -> Iterator[Track]:
    for band, licence in (("muldjord", "CC-BY-SA-3.0"), ("sectoid", "MIT")):
        songs = _root(work_dir, f"fretsonfire-songs-{band}", f"fretsonfire/data/songs/{band}")
        for folder in sorted(path.parent for path in songs.glob("*/guitar.ogg")):
            labels: Labels = {
                "composer": band.title(),
                "solo": False,
                "tempo_bpm": _tempo(folder / "notes.mid"),
            }
            labels["title"] = folder.name.replace("_", " ").title()
            labels["style"] = "death metal" if band == "muldjord" else None
            if folder.name == "Metal madness":
                labels["style"] = "metal"
            if labels["style"]:
                band_of = {"ensemble": "band", "acoustic": False, "drums": True}
                labels |= {**band_of, "instruments": ["distorted electric guitar", "drums"]}
            trained = folder.name in ("armygeddon", "mutilated_mime")
            split: Split = "train" if trained else "test"
            yield Track(_mixed(work_dir, folder), f"{band}:{folder.name}", licence, 12, labels, split)


def _singularity(work_dir: Path) -> Iterator[Track]:
    for path in sorted(_root(work_dir, "singularity-music", "singularity/music").rglob("*.ogg")):
        labels = {**_ELECTRONIC, **_tags(path)}
        yield Track(path, f"singularity:{path.stem}", "CC-BY-SA-3.0", 4, labels, "test")


_SOURCES = (_wesnoth, _warzone, _nexuiz, _ufoai, _supertux, _fillets, _frets_on_fire, _singularity)


def recordings(work_dir: Path) -> Iterator[Track]:
    """Every recording of every package."""
    for source in _SOURCES:
        yield from source(work_dir)


def make_plans(work_dir: Path) -> None:
    """Plan excerpts spread evenly over every track, never overlapping."""
    plans: list[Plan] = []
    for track in recordings(work_dir):
        length_s = soundfile.info(track.path).duration
        room_s = length_s - 2 * _MARGIN_S
        num = min(scaled(track.num_clips), int(room_s / CLIP_S))
        rng = seeded("recording", track.path.name)
        for k in range(num):
            slot_s = room_s / num
            start_s = round(_MARGIN_S + k * slot_s + rng.uniform(0, slot_s - CLIP_S), 2)
            name = re.sub(r"[^A-Za-z0-9]+", "_", f"{track.work.split(':')[0]}_{track.path.stem}")
            path = track.path.relative_to(work_dir).as_posix()
            split = track.split or split_of(track.work)
            labels = dict(track.labels)
            if "instruments" in labels:
                labels["instruments_complete"] = False
            clip_id = f"F-{split}-{name}-{k}"
            plans.append(Plan(clip_id, "F", track.work, split, path, track.licence, None, start_s, labels))
    write_plans(work_dir, "F", plans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    make_plans(parser.parse_args().work)
