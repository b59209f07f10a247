"""Measured facts in prompts: only when asked for, only for models that read them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mu_llama.audio.facts import Fact, Facts
from mu_llama.audio.waveform import Waveform
from mu_llama.inference.answering import make_row
from mu_llama.inference.extractor import in_words, measure_in_words
from mu_llama.inference.listener import Listener
from mu_llama.inference.results import EncodedTrack
from mu_llama.musicqa.dialogues.phrasebook import wording
from mu_llama.text.fact_prompts import MeasuredFact, topics_of, with_measured
from mu_llama.text.prompts import Turn


@pytest.mark.parametrize("topic", ["tempo", "key", "loudness", "duration"])
def test_every_wording_of_training_is_recognised(topic: str) -> None:
    for question in wording()["facts"][topic]:
        assert topic in topics_of(question), question


def test_every_wording_of_pace_is_recognised() -> None:
    for kind in ("questions", "slow_questions", "fast_questions"):
        for question in wording()["pace"][kind]:
            assert topics_of(question) == ("tempo",), question


def test_other_wordings_measure_nothing() -> None:
    for topic in (
        "instruments",
        "lead",
        "presence",
        "drums",
        "voice",
        "style",
        "mood",
        "energy",
        "uses",
        "short",
        "caption",
    ):
        for question in wording()[topic]["questions"]:
            assert topics_of(question) == (), question


@pytest.mark.parametrize(
    ("question", "topics"),
    [
        ("What is the tempo in BPM?", ("tempo",)),
        ("How fast is it?", ("tempo",)),
        ("Is it slow or fast?", ("tempo",)),
        ("What key is this in?", ("key",)),
        ("Is it in major or minor?", ("key",)),
        ("Tempo and key, please", ("tempo", "key")),
        ("How loud is the recording?", ("loudness",)),
        ("How long does it last?", ("duration",)),
        ("Do you hear a keyboard?", ()),
        ("What is the lead instrument?", ()),
        ("Describe the audio", ()),
        ("Describe the tempo.", ("tempo",)),
        ("What is the tempo? Answer in one sentence.", ("tempo",)),
        ("How quick is it?", ("tempo",)),
        ("Would you call it slow, medium or fast?", ("tempo",)),
        ("Is this fast music?", ("tempo",)),
        ("Is it a slow piece?", ("tempo",)),
        ("key?", ("key",)),
        ("In which key is the piece?", ("key",)),
        ("What are the key elements of this track?", ()),
        ("Who plays the key part?", ()),
        ("Is it a minor detail?", ()),
        ("Is there a fast guitar solo?", ()),
        ("How long is the guitar solo?", ()),
        ("How loud are the drums?", ()),
        ("How long is this recording?", ("duration",)),
        ("What is the length of the track?", ("duration",)),
        ("Write a caption with the tempo", ()),
    ],
)
def test_topics(question: str, topics: tuple[str, ...]) -> None:
    assert topics_of(question) == topics


def test_words_say_what_is_unsure() -> None:
    facts = Facts(61.0, Fact(120.4, 0.9, "m", (60.2,)), Fact("A minor", 0.4, "m"), Fact(-14.25, 1.0, "m"))
    words = in_words(facts)
    assert words["tempo"] == MeasuredFact("120 BPM", 0.9)
    assert words["key"] == MeasuredFact("A minor", 0.4)
    assert words["duration"].text == "1:01 minutes"
    assert with_measured("Q?", {"key": words["key"]}) == "Q?\nMeasured: key A minor (unsure)"
    assert set(in_words(Facts(3.0, None, None, None))) == {"duration"}


class Counting:
    """Gives facts and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, MeasuredFact]:
        self.calls += 1
        return {"tempo": MeasuredFact("97 BPM"), "key": MeasuredFact("D major", 0.3)}


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def track(tiny: Listener, tracks: list[Path], counting: Counting) -> EncodedTrack:
    return replace(tiny.listen(tracks[0]), measure=counting)


def prompt(listener: Listener, track: EncodedTrack, *turns: Turn, reads: bool) -> str:
    opened = listener.opened
    parts = replace(opened.parts, template=replace(opened.parts.template, reads_measured=reads))
    row = make_row(replace(opened, parts=parts), track, turns)
    return opened.tokenizer.decode(row.prompt.ids)


def test_the_prompt_carries_what_is_asked_for(tiny: Listener, track: EncodedTrack, counting: Counting) -> None:
    turns = (Turn("How many BPM?", "97."), Turn("And the key?"))
    text = prompt(tiny, track, *turns, reads=True)
    assert text.count("Measured: tempo 97 BPM") == 1  # earlier turns keep their facts
    assert text.count("Measured: key D major (unsure)") == 1


def test_nothing_is_measured_unasked(tiny: Listener, track: EncodedTrack, counting: Counting) -> None:
    assert "Measured" not in prompt(tiny, track, Turn("Are there drums?"), reads=True)
    assert "Measured" not in prompt(tiny, track, Turn("What is the tempo?"), reads=False)
    assert counting.calls == 0


def test_a_track_is_measured_once(tiny: Listener, tracks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []
    monkeypatch.setattr("mu_llama.inference.tracks.measure_in_words", lambda audio, **_: heard.append(audio) or {})
    track = tiny.listen(tracks[0])
    assert not heard
    track.measure()
    track.measure()
    assert heard == [tracks[0]]


def test_what_cannot_be_measured_is_said_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("no sound")
    with caplog.at_level(logging.WARNING):
        assert measure_in_words(tmp_path / "a.txt") == {}
    assert "not measured" in caplog.text


def test_a_waveform_is_measured_within_its_range() -> None:
    rng = np.random.default_rng(0)
    sound = Waveform(rng.normal(0, 0.1, 16000 * 10).astype(np.float32), 16000)
    assert measure_in_words(sound)["duration"].text == "0:10 minutes"
