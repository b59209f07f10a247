"""Small corpora in the layouts that users have."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import soundfile

from mu_llama.musicqa.language import a

INSTRUMENTS = ("piano", "violin", "acoustic guitar", "flute", "drums", "cello", "trumpet", "harp")
GENRES, MOODS = ("jazz", "rock", "techno", "classical music", "folk music"), ("sad", "happy", "calm", "energetic")
TEMPI, VOICES = ("slow tempo", "fast tempo", "medium tempo"), ("female singer", "male singer", "no voices")


def tone(path: Path, *, seconds: float = 0.5, rate_hz: int = 16000, frequency_hz: float = 220.0) -> Path:
    """Write a sine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.3 * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz)
    soundfile.write(path, samples.astype(np.float32), rate_hz)
    return path


def musiccaps(folder: Path, num_tracks: int, *, audio: bool = True, seed: int = 0) -> Path:
    """A MusicCaps csv of made-up rows with true captions, and clips beside it."""
    source = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "musiccaps-public.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption", "author_id"))
        for number in range(num_tracks):
            heard = source.sample(INSTRUMENTS, 2)
            aspects = [*heard, source.choice(GENRES), source.choice(MOODS), source.choice(TEMPI), source.choice(VOICES)]
            caption = f"Track {number} has {a(heard[0])} and {a(heard[1])}."
            table.writerow((f"video{number:05}", 30, 40, "", str(aspects), caption, 1))
            if audio:
                tone(folder / f"[video{number:05}]-[30-40].wav", frequency_hz=100 + number)
    return folder


def magnatagatune(folder: Path, *, nested: bool = True) -> Path:
    """Four clips; the last has too few tags."""
    tags = ["violin", "slow", "classical", "strings", "solo", "no vocals", "weird"]
    rows = [
        ("2", "1111110", "f/american_bach_soloists-j_s__bach_solo_cantatas-01-bwv54_i_aria-30-59.mp3"),
        ("6", "1111101", "f/american_bach_soloists-j_s__bach_solo_cantatas-02-bwv54_ii_recit-0-29.mp3"),
        ("10", "0111110", "c/ensemble_mirable-conservatory-03-trio-117-146.mp3"),
        ("11", "1000000", "c/ensemble_mirable-conservatory-04-trio-0-29.mp3"),
    ]
    lines = ["\t".join(["clip_id", *tags, "mp3_path"])]
    lines += ["\t".join([number, *values, path]) for number, values, path in rows]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations_final.csv").write_text("\n".join(lines) + "\n")
    for _, _, path in rows:
        wav = tone(folder / "audio" / f"{Path(path).stem}.wav", rate_hz=44100)
        target = folder / (path if nested else Path(path).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        wav.rename(target)
    return folder


def mtg_jamendo(folder: Path) -> Path:
    """Three tracks of two artists; the second has too few tags, the third no audio."""
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    many = "genre---rock\tgenre---poprock\tinstrument---acousticguitar\tinstrument---voice\tmood/theme---happy"
    rows = [
        f"track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\t{many}",
        "track_0000215\tartist_000014\talbum_000031\t15/215.mp3\t151.4\tgenre---metal",
        f"track_0000382\tartist_000020\talbum_000046\t82/382.mp3\t211.1\t{many}\tmood/theme---film",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw_30s_cleantags_50artists.tsv").write_text("\n".join([header, *rows]) + "\n")
    tone(folder / "14" / "214.wav").rename(folder / "14" / "214.low.mp3")
    return folder
