"""Notes: read a MIDI file into a list, write a list as MIDI, and say what is true of a stretch of it."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import mido

from recipes.mini.instruments import DRUMS, ELECTRIC, HAND_PERCUSSION, KIT_KEYS, PLAIN_NAMES
from recipes.mini.plans import CLIP_S, Labels

DRUM_CHANNEL = 9
_TICKS = 480
_FAINT_SHARE = 0.03  # below this share of sound an instrument may be inaudible: neither yes nor no
_VOICES = frozenset({52, 53, 54, 85, 91})  # choirs, voice lead, choir pad
_DRUM_HIT_S = 0.15  # a drum hit has no length of its own; this is the length it counts for
_MAX_DB, _MUTED_SHARE = 6.0, 0.25
_REVOICED_SHARE = 0.5


@dataclass(frozen=True)
class Note:
    """One sounding note. Velocity has the channel's volume and expression folded in (0-127)."""

    start_s: float
    end_s: float
    channel: int
    program: int
    pitch: int
    velocity: int


def read_midi(path: Path) -> list[Note]:
    """Read the notes of a MIDI file, in order of start; silent channels (volume 0) give none."""
    program = [0] * 16
    level = [[100, 127] for _ in range(16)]  # controllers 7 and 11
    open_notes: dict[tuple[int, int], list[tuple[float, int, int]]] = defaultdict(list)
    notes: list[Note] = []
    now_s = 0.0
    for message in mido.MidiFile(path, clip=True):
        now_s += message.time
        if message.type == "program_change":
            program[message.channel] = message.program
        elif message.type == "control_change" and message.control in (7, 11):
            level[message.channel][message.control == 11] = message.value
        elif message.type == "note_on" and message.velocity:
            volume, expression = level[message.channel]
            loud = round(message.velocity * min(volume / 100, 1.27) * expression / 127)
            if loud > 0:
                key = (message.channel, message.note)
                open_notes[key].append((now_s, program[message.channel], min(loud, 127)))
        elif message.type in ("note_off", "note_on"):
            key = (message.channel, message.note)
            if open_notes[key]:
                start_s, patch, loud = open_notes[key].pop(0)
                end_s = max(now_s, start_s + 0.02)
                notes.append(Note(start_s, end_s, message.channel, patch, message.note, loud))
    return sorted(notes, key=lambda n: (n.start_s, n.channel, n.pitch))


def write_midi(path: Path, notes: list[Note]) -> None:
    """Write notes at 120 quarters a minute, one program a channel, so that seconds are exact."""
    track = mido.MidiTrack()
    events: list[tuple[float, int, mido.Message]] = []
    for channel, program in sorted({(n.channel, n.program) for n in notes}):
        events.append((0.0, 0, mido.Message("program_change", channel=channel, program=program)))
    for n in notes:
        on = mido.Message("note_on", channel=n.channel, note=n.pitch, velocity=n.velocity)
        off = mido.Message("note_off", channel=n.channel, note=n.pitch, velocity=0)
        events += [(n.start_s, 2, on), (n.end_s, 1, off)]
    tick = 0
    for at_s, _, message in sorted(events, key=lambda e: (e[0], e[1])):
        at_tick = round(at_s * 2 * _TICKS)
        track.append(message.copy(time=max(at_tick - tick, 0)))
        tick = max(at_tick, tick)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    mido.MidiFile(tracks=[track], ticks_per_beat=_TICKS).save(part)
    part.replace(path)


def choose_start(notes: list[Note], rng: random.Random) -> float | None:
    """Choose where a 12 s excerpt starts: on a note, sounding for 70 % of its length; None if nowhere."""
    if not notes:
        return None
    last_s = max(n.end_s for n in notes) - CLIP_S
    starts = sorted({n.start_s for n in notes if n.start_s <= max(last_s, notes[0].start_s)})
    rng.shuffle(starts)
    for start_s in starts[:40]:
        sounding = [0.0] * 24
        for n in inside(notes, start_s):
            first, end = int((n.start_s - start_s) * 2), (n.end_s - start_s) * 2
            for half_second in range(max(first, 0), min(int(end) + 1, 24)):
                sounding[half_second] = 1.0
        if sum(sounding) >= 0.7 * 24:
            return max(start_s - 0.01, 0.0)
    return None


def remixed(notes: list[Note], rng: random.Random) -> list[Note]:
    """Give another mix of the same parts: each up to 6 dB louder or softer, and one time in four one left out."""
    parts = sorted({(n.channel, n.program) for n in notes})
    if len(parts) < 2:
        return notes
    # Power goes with the square of velocity, so x dB are a factor of 10^(x / 40).
    gains = {part: 10 ** (rng.uniform(-_MAX_DB, _MAX_DB) / 40) for part in parts}
    muted = rng.choice(parts) if len(parts) > 2 and rng.random() < _MUTED_SHARE else None
    return [
        replace(n, velocity=min(127, max(1, round(n.velocity * gains[n.channel, n.program]))))
        for n in notes
        if (n.channel, n.program) != muted
    ]


def revoiced(notes: list[Note], rng: random.Random) -> list[Note]:
    """Give some parts another General MIDI program that goes by the same plain name; labels stay."""
    parts = sorted({(n.channel, n.program) for n in notes if n.channel != DRUM_CHANNEL and n.program in PLAIN_NAMES})
    alike = {part: [p for p, name in PLAIN_NAMES.items() if name == PLAIN_NAMES[part[1]]] for part in parts}
    programs = {part: rng.choice(alike[part]) for part in parts if rng.random() < _REVOICED_SHARE}
    return [replace(n, program=programs.get((n.channel, n.program), n.program)) for n in notes]


def inside(notes: list[Note], start_s: float, length_s: float = CLIP_S) -> list[Note]:
    """Give the notes that sound at some time in the `length_s` seconds from `start_s`."""
    return [n for n in notes if n.start_s < start_s + length_s and n.end_s > start_s]


def facts(notes: list[Note], start_s: float) -> Labels:
    """Say what the notes of an excerpt show.

    Returns:
        instruments: names by share of sound (length x velocity squared), without those below 3 %.
        instruments_complete: True: no other instrument sounds, save those in `faint`.
        faint: names below 3 %, which may be inaudible.
        drums: True for four or more kit hits, False for no percussion at all, else None.
        density: different note onsets a second.
        ensemble, solo: by the number of names: one is solo, two a duo, more a band; None if `faint` blurs it.
        vocals: False unless a General MIDI voice sounds, then None.
        acoustic: whether no instrument in it is electric or synthetic; None if only a faint one is.
    """
    weight: dict[str, float] = defaultdict(float)
    kit_hits, percussion = 0, False
    excerpt = inside(notes, start_s)
    for n in excerpt:
        length_s = min(n.end_s, start_s + CLIP_S) - max(n.start_s, start_s)
        if n.channel == DRUM_CHANNEL:
            percussion = True
            kit_hits += n.pitch in KIT_KEYS
            name, length_s = (DRUMS if n.pitch in KIT_KEYS else HAND_PERCUSSION), _DRUM_HIT_S
        else:
            name = PLAIN_NAMES.get(n.program, "")
            percussion |= name == HAND_PERCUSSION
        weight[name] += length_s * (n.velocity / 127) ** 2
    total = sum(weight.values()) or 1.0
    ranked = sorted((name for name in weight if name), key=lambda name: -weight[name])
    min_weights = {name: 0.0 if name == DRUMS and kit_hits >= 8 else _FAINT_SHARE * total for name in ranked}
    clear = [name for name in ranked if weight[name] >= min_weights[name]]
    faint = [name for name in ranked if name not in clear]
    acoustic = False if ELECTRIC & set(clear) else None if ELECTRIC & set(faint) or "" in weight else True
    ensemble = {1: "solo", 2: "duo"}.get(len(clear), "band") if clear else None
    if faint and ensemble != "band":
        ensemble = None
    onsets = {round(n.start_s, 2) for n in excerpt if start_s <= n.start_s}
    return {
        "instruments": clear,
        "instruments_complete": True,
        "faint": faint,
        "drums": True if kit_hits >= 4 and DRUMS in clear else None if percussion else False,
        "ensemble": ensemble,
        "solo": False if len(clear) > 1 else ensemble == "solo" or None,
        "vocals": None if any(n.program in _VOICES for n in excerpt if n.channel != DRUM_CHANNEL) else False,
        "density": round(len(onsets) / CLIP_S, 2),
        "acoustic": acoustic,
    }
