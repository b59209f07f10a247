"""Group E: an old tune sung by a synthetic voice, alone or over a band in its key, with its voice-free twin."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import soxr

from recipes.mini.abc_tunes import Tune, play, read_books
from recipes.mini.bands import Groove, play_groove, read_grooves
from recipes.mini.folk import METERS, accompany, chords_of_bars
from recipes.mini.notes import DRUM_CHANNEL, Note, write_midi
from recipes.mini.plans import (
    CLIP_S,
    RATE_HZ,
    Labels,
    Plan,
    Split,
    default_work_dir,
    font_of,
    made_of,
    read_plans,
    scaled,
    seeded,
    split_of,
    write_plans,
)

# Clips wanted: sung over a band (each with a twin without the voice), sung alone.
AMOUNTS: dict[Split, tuple[int, int]] = {"train": (220, 60), "val": (20, 6), "test": (80, 24)}
# Voices used once more, over recordings of the same split.
OVER_RECORDINGS: dict[Split, int] = {"train": 200, "val": 14, "test": 60}
_LICENCE = "tune public domain; voice nitech_jp_song070_f001 CC BY 3.0"
_MIDDLE_PITCH = 67
_LONGEST_S = 15.0
_NOTES_A_BAR = 6  # the singer takes only so many; where its bars begin changes nothing
_SYLLABLES = tuple("あかさたなはまやらわいきしちにみりうくすつぬむるえけせてねめれおこそとのもよろ")
_SECOND_PLAYERS: tuple[int, ...] = (0, 24, 25, 46, 48, 19, 21, 6, 4, 26)
_LOWERED = (0.72, 0.8)  # a voice played slower sounds like a man's: its sex is not labelled
_CHORD_LETTERS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


class Singer:
    """The voice that comes with pysinsy."""

    def __init__(self) -> None:
        import pysinsy

        self._sinsy = pysinsy.Sinsy()
        self._sinsy.setLanguages("j", pysinsy.get_default_dic_dir())
        self._sinsy.loadVoices(pysinsy.get_default_htsvoice())

    def sing(self, score: Path) -> tuple[np.ndarray, int]:
        """Sing a MusicXML file: float32 (S,) in -1 to 1 and its rate."""
        self._sinsy.loadScoreFromMusicXML(str(score))
        sound, rate_hz = self._sinsy.synthesize()
        self._sinsy.clearScore()
        return np.asarray(sound, np.float32) / 32768, int(rate_hz)


def music_xml(notes: list[Note], bpm: float, rng: Random) -> str:
    """Write a melody (times in quarters) as MusicXML with a syllable a note, a bar of rest in front."""
    body, at = [_rest(4.0)], 0.0
    for n in notes:
        if n.start_s > at + 1e-6:
            body.append(_rest(n.start_s - at))
        step, alter = (("C", 0), ("C", 1), ("D", 0), ("D", 1), ("E", 0), ("F", 0), ("F", 1), ("G", 0), ("G", 1),
                       ("A", 0), ("A", 1), ("B", 0))[n.pitch % 12]  # fmt: skip
        pitch = f"<step>{step}</step><alter>{alter}</alter><octave>{n.pitch // 12 - 1}</octave>"
        length = round((n.end_s - n.start_s) * 480)
        syllable = rng.choice(_SYLLABLES)
        body.append(
            f"<note><pitch>{pitch}</pitch><duration>{length}</duration><voice>1</voice>"
            f"<lyric><syllabic>single</syllabic><text>{syllable}</text></lyric></note>"
        )
        at = n.end_s
    groups = [body[k : k + _NOTES_A_BAR] for k in range(1, len(body), _NOTES_A_BAR)]
    bars = "".join(f'<measure number="{k}">{"".join(group)}</measure>' for k, group in enumerate(groups, start=2))
    return (
        '<?xml version="1.0" encoding="UTF-8"?><score-partwise version="2.0"><part-list><score-part id="P1">'
        '<part-name>voice</part-name></score-part></part-list><part id="P1"><measure number="1"><attributes>'
        "<divisions>480</divisions><key><fifths>0</fifths></key><time><beats>4</beats><beat-type>4</beat-type></time>"
        f'</attributes><sound tempo="{bpm}"/>{body[0]}</measure>{bars}</part></score-partwise>'
    )


def _rest(quarters: float) -> str:
    return f"<note><rest/><duration>{round(quarters * 480)}</duration><voice>1</voice></note>"


def _melody(raw: list[Note], turn: int, quarter_s: float) -> list[Note]:
    """One voice in the singer's range, one note at a time, no longer than wanted; times stay in quarters."""
    middle = sorted(n.pitch for n in raw)[len(raw) // 2] + turn
    octave = 12 * round((_MIDDLE_PITCH - middle) / 12)
    ordered = sorted(raw, key=lambda n: (n.start_s, -n.pitch))
    line: list[Note] = []
    for n in ordered:
        if n.start_s * quarter_s > _LONGEST_S:
            break
        if line and n.start_s < line[-1].end_s:
            if n.start_s <= line[-1].start_s:
                continue
            line[-1] = replace(line[-1], end_s=n.start_s)
        line.append(replace(n, pitch=n.pitch + turn + octave))
    return [n for n in line if n.end_s > n.start_s]


def _sung(singer: Singer, melody: list[Note], bpm: float, folder: Path, clip_id: str, rng: Random, lowered: float
          ) -> np.ndarray:  # fmt: skip
    """Sing 12 s: float32 (S,) at 16 kHz, the rest in front cut off; a factor below 1 plays it slower and lower."""
    score = folder / f"{clip_id}.xml"
    score.parent.mkdir(parents=True, exist_ok=True)
    score.write_text(music_xml(melody, bpm / lowered, rng), encoding="utf-8")
    sound, rate_hz = singer.sing(score)
    score.unlink()
    sound = soxr.resample(sound, round(rate_hz * lowered), RATE_HZ)
    first = round(4 * 60 / bpm * RATE_HZ)
    return np.asarray(sound[first : first + round(CLIP_S * RATE_HZ)], np.float32)


def _backing(
    work_dir: Path, tune: Tune, melody: list[Note], turn: int, bpm: int, grooves: list[Groove], rng: Random
) -> tuple[list[Note], Labels]:
    """Notes in seconds under a melody: a groove on the tune's chords where one fits, else a second player."""
    _quarters, bar, _ = METERS[tune.meter]
    quarter_s = 60 / bpm
    fitting = [
        (g, times) for g in grooves for times in (1, 2)
        if g.meter == tune.meter and g.slow_bpm - 10 <= bpm * times <= g.fast_bpm + 10
    ]  # fmt: skip
    if fitting and rng.random() < 0.7:
        groove, times = rng.choice(fitting)
        chords = [_chord_name(triad) for _, triad in chords_of_bars(tune, melody, turn, bar) for _ in range(times)]
        notes = play_groove(work_dir, groove, bpm * times, chords)
        if any(n.channel != DRUM_CHANNEL for n in notes):
            return notes, {"tempo_bpm": bpm * times}
    program = rng.choice(_SECOND_PLAYERS)
    part = accompany(tune, melody, turn, program=program, channel=1, drone=rng.random() < 0.2, rng=rng)
    return [replace(n, start_s=n.start_s * quarter_s, end_s=n.end_s * quarter_s) for n in part], {"tempo_bpm": bpm}


def _chord_name(triad: tuple[int, ...]) -> str:
    root, third, _ = triad
    return _CHORD_LETTERS[root] + ("m" if (third - root) % 12 == 3 else "")


def make_plans(work_dir: Path) -> None:
    """Sing, and write a backing and plans for every clip wanted; the voices are kept as FLAC."""
    singer, tunes = Singer(), [t for t in read_books() if t.meter in ("4/4", "2/4", "3/4", "6/8")]
    grooves = read_grooves(work_dir)
    seeded("voice order").shuffle(tunes)
    plans: list[Plan] = []
    for split, (num_mixed, num_alone) in made_of(AMOUNTS):
        of_split = [g for g in grooves if g.split == split]
        pool = iter([t for t in tunes if split_of(t.work) == split] * 4)
        for number in range(scaled(num_mixed) + scaled(num_alone)):
            clip_id, alone = f"E-{split}-{number:04d}", number >= scaled(num_mixed)
            raw = list[Note]()
            while len(raw) < 24:
                tune = next(pool)
                raw = play(tune, work_dir)
            plans += _make(work_dir, singer, tune, raw, clip_id, split, of_split, alone=alone)
        print(f"E: {split} made", flush=True)
    write_plans(work_dir, "E", plans + list(_over_recordings(work_dir, plans)))


def _over_recordings(work_dir: Path, plans: list[Plan]) -> Iterator[Plan]:
    """Voices over real music, so that it isn't always instrumental; the recording alone is in group F."""
    for split, count in made_of(OVER_RECORDINGS):
        rng = seeded("over recordings", split)
        voices = [plan for plan in plans if plan.split == split and plan.voice is not None]
        grounds = [plan for plan in read_plans(work_dir, "F") if plan.split == split and not plan.labels.get("vocals")]
        for number in range(min(scaled(count), len(grounds))):
            sung, ground = rng.choice(voices), grounds[number * len(grounds) // scaled(count)]
            licence = f"{ground.licence}; {_LICENCE}"
            common = (ground.work, split, ground.source, licence, None, ground.start_s)
            voice: Labels = {"vocals": True, "voice": sung.labels.get("voice"), "ensemble": None, "solo": False}
            name = f"E-{split}-over-{number:04d}"
            yield Plan(
                f"{name}-sung", "E", *common, {**ground.labels, **voice}, sung.voice, round(rng.uniform(-2, 6), 1)
            )


def _make(
    work_dir: Path, singer: Singer, tune: Tune, raw: list[Note], clip_id: str, split: Split, grooves: list[Groove],
    *, alone: bool
) -> list[Plan]:  # fmt: skip
    """The plans of one song: sung alone, or mixed and the same without the voice."""
    rng = seeded("voice", clip_id)
    bpm, turn = rng.randint(52, 90), rng.randint(-3, 3)
    lowered = rng.choice(_LOWERED) if rng.random() < 0.3 else 1.0
    melody = _melody(raw, turn, 60 / bpm)
    voice = Path("voices") / f"{clip_id}.flac"
    if not (work_dir / voice).exists():
        sound = _sung(singer, melody, bpm, work_dir / "scores", clip_id, rng, lowered)
        peak = float(np.abs(sound).max()) or 1.0
        (work_dir / voice).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(work_dir / voice, sound * (0.89 / peak), RATE_HZ, format="FLAC")
    sung: Labels = {"vocals": True, "voice": "female" if lowered == 1.0 else None, "title": tune.title}
    if alone:
        only: Labels = {**sung, "instruments": [], "instruments_complete": True, "drums": False, "solo": True,
                        "ensemble": "solo", "acoustic": True, "style": None}  # fmt: skip
        return [Plan(f"{clip_id}-alone", "E", tune.work, split, voice.as_posix(), _LICENCE, None, 0.0, only)]
    notes, known = _backing(work_dir, tune, melody, turn, bpm, grooves, rng)
    midi = Path("midi/E") / f"{clip_id}.mid"
    write_midi(work_dir / midi, notes)
    font, gain_db = font_of(clip_id, split), rng.uniform(-6, 6)
    mixed = {**known, **sung, "solo": False, "ensemble": None}
    common = (tune.work, split, midi.as_posix(), _LICENCE, font, 0.0)
    return [
        Plan(f"{clip_id}-sung", "E", *common, mixed, voice.as_posix(), round(gain_db, 1)),
        Plan(f"{clip_id}-twin", "E", *common, known),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work_dir())
    make_plans(parser.parse_args().work)
