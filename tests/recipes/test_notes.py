"""Notes of recipes/mini: mixed anew, played by like instruments, and rags of its own."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from recipes.mini.instruments import PLAIN_NAMES
from recipes.mini.notes import DRUM_CHANNEL, Note, facts, read_midi, remixed, revoiced, write_midi
from recipes.mini.plans import TEST_FONT, read_jsonl
from recipes.mini.ragtime import compose_rag, rag_plans
from recipes.mini.timidity import PatchPlayer

ORGAN, VIOLIN, BASS = 16, 40, 33


def _part(channel: int, program: int, velocity: int = 80) -> list[Note]:
    return [Note(at / 2, at / 2 + 0.4, channel, program, 60, velocity) for at in range(24)]


BAND = [*_part(0, ORGAN), *_part(1, VIOLIN), *_part(2, BASS), *_part(DRUM_CHANNEL, 0)]


def test_revoiced_parts_keep_their_names() -> None:
    changed = Counter[int]()
    for seed in range(40):
        notes = revoiced(BAND, random.Random(seed))
        assert facts(notes, 0.0)["instruments"] == facts(BAND, 0.0)["instruments"]
        changed.update({note.channel for note, old in zip(notes, BAND, strict=True) if note.program != old.program})
    assert 5 < changed[0] < 35, "an organ is played by another organ about half the time"
    assert not changed[DRUM_CHANNEL]


def test_remixed_parts_are_louder_softer_or_gone() -> None:
    mixes = [remixed(BAND, random.Random(seed)) for seed in range(40)]
    levels = {note.velocity for mix in mixes for note in mix}
    assert min(levels) < 70 < 90 < max(levels)
    assert {len({note.channel for note in mix}) for mix in mixes} == {3, 4}


def test_a_rag_is_syncopated_piano_over_a_striding_bass(tmp_path: Path) -> None:
    notes, labels = compose_rag("a")
    assert compose_rag("a")[0] == notes
    assert compose_rag("b")[0] != notes
    assert labels["style"] == "ragtime"
    assert labels["tempo_bpm"] is not None
    found = facts(notes, 0.0)
    assert (found["instruments"], found["drums"], found["solo"]) == (["piano"], False, True)
    sixteenth_s = 15 / labels["tempo_bpm"]
    right = {round(note.start_s / sixteenth_s) % 8 for note in notes if note.channel == 0}
    left = {round(note.start_s / sixteenth_s) % 8 for note in notes if note.channel == 1}
    assert right & {1, 3, 5, 7}, "off the beat"
    assert left == {0, 2, 4, 6}
    write_midi(tmp_path / "rag.mid", notes)
    assert len(read_midi(tmp_path / "rag.mid")) == pytest.approx(len(notes), rel=0.02)


def test_rags_are_for_training_and_validation_alone(tmp_path: Path) -> None:
    plans = rag_plans(tmp_path)
    assert {plan.split for plan in plans} == {"train", "val"}
    assert TEST_FONT not in {plan.soundfont for plan in plans}
    assert len({plan.work for plan in plans}) == len(plans)
    assert all((tmp_path / plan.source).exists() for plan in plans)


def test_freepats_plays_what_it_lacks_by_something_of_the_same_name(tmp_path: Path) -> None:
    config = tmp_path / "freepats/etc/timidity/freepats.cfg"
    config.parent.mkdir(parents=True)
    config.write_text(
        "dir /usr/share/midi/freepats\nbank 0\n 16  Tone_000/016_Hammond.pat\n40 Tone_000/040_Violin.pat\n"
    )
    player = PatchPlayer(tmp_path)
    other_organ = [*_part(0, 18), *_part(1, VIOLIN), *_part(DRUM_CHANNEL, 0)]
    played = player.playable(other_organ)
    assert {PLAIN_NAMES[n.program] for n in played if n.channel == 0} == {"electric organ"}
    assert {n.program for n in played if n.channel == 0} == {16}
    assert player.playable(BAND) == [], "no bass there"


def test_a_cut_line_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2')
    assert read_jsonl(tmp_path / "a.jsonl") == [{"id": 1}]
