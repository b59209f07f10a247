"""Conversations written from labels: true, varied, hedged where a label is a guess."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.mini.reading import named, refuses, says_voice, yes_or_no
from benchmarks.mini.tables import UNSEEN
from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues.compose import compose, conversation_rows, describe_at_length, describe_briefly
from mu_llama.musicqa.dialogues.phrasebook import Phrasebook, wording
from mu_llama.musicqa.dialogues.track_labels import ASKABLE, FAMILIES, AnswerBalancer, TrackLabels
from mu_llama.musicqa.language import pace_of
from mu_llama.text.prompts import Turn

RICH = Track(
    "rich",
    audio=Path("a.flac"),
    tags={
        "instrument": ("piano", "flute", "electric bass", "drums"), "lead": ("flute",), "ensemble": ("band",),
        "genre": ("bossa nova",), "production": ("electric",), "era": ("1960s",), "use": ("a café",),
    },
    absent={"instrument": ("others",), "voice": ("voice",)},
    guesses={"genre": ("jazz",), "mood": ("mellow",), "energy": ("low",), "valence": ("bright",)},
    doubts={"genre": ("metal", "punk")},
    facts={"tempo_bpm": 140.0},
)  # fmt: skip
GUESSED = Track(
    "guessed",
    guesses={"genre": ("ambient",), "mood": ("calm",), "instrument": ("synthesizer",)},
    doubts={"genre": ("rock",), "instrument": ("drums", "flute"), "voice": ("voice",)},
)
SUNG = Track("sung", tags={"ensemble": ("solo",), "voice": ("female",)}, absent={"instrument": ("others", "drums")})
SPEECH = Track("speech", tags={"sound": ("speech",)}, absent={"voice": ("voice",)})
TRACKS = (RICH, GUESSED, SUNG, SPEECH)


PACE_QUESTIONS = {text for kind, texts in wording()["pace"].items() if kind.endswith("questions") for text in texts}


def many(track: Track, count: int = 200, num_turns: int = 8) -> list[Turn]:
    return [turn for seed in range(count) for turn in compose(track, num_turns=num_turns, rng=random.Random(seed))]


@pytest.mark.parametrize("track", TRACKS, ids=lambda track: track.id)
def test_every_turn_is_filled(track: Track) -> None:
    for turn in many(track):
        assert turn.answer
        assert not re.search(r"[{}]|None|\b(a|an) (a|an)\b|  ", f"{turn.question} {turn.answer}"), turn
        assert turn.answer[0].isupper() or turn.answer[0] in "(-0123456789", turn


def test_every_topic_comes_up() -> None:
    said = " ".join(turn.question for turn in many(RICH, 400))
    for topic in (
        "instruments",
        "lead",
        "drums",
        "voice",
        "ensemble",
        "style",
        "mood",
        "energy",
        "valence",
        "uses",
        "era",
        "presence",
        "follow",
        "style_presence",
        "acoustic",
        "caption",
        "long",
        "louder",
        "letters",
    ):
        stems = [re.split(r"\{", question)[0] for question in wording()[topic]["questions"]]
        assert any(len(stem) > 3 and stem in said for stem in stems), topic


@pytest.mark.parametrize("name", ASKABLE)
def test_yes_and_no_follow_the_labels(name: str) -> None:
    there = name in RICH.tags["instrument"] or bool(FAMILIES.get(name, frozenset()) & set(RICH.tags["instrument"]))
    checked = 0
    for turn in many(RICH, 300):
        said = yes_or_no(turn.answer or "")
        asked = re.search(rf"\b{name}\b", turn.question) and "(A)" not in turn.question and " or " not in turn.question
        longer = any(name in other and name != other and other in turn.question for other in ASKABLE)
        if asked and not longer and said is not None and "louder" not in turn.question:
            assert said is there, turn
            checked += 1
    labels = TrackLabels(RICH)
    assert bool(checked) is (name in (*labels.present, *labels.missing))


def test_descriptions_say_of_drums_what_labels_say() -> None:
    without = tuple(name for name in RICH.tags["instrument"] if name != "drums")
    drumless = replace(
        RICH,
        tags={**RICH.tags, "instrument": without},
        absent={**RICH.absent, "instrument": ("others", "drums")},
    )
    for track, told in ((RICH, r"There are drums|drum kit plays"), (drumless, r"no drums|No drums")):
        turns = [describe_at_length(TrackLabels(track), Phrasebook(random.Random(seed))) for seed in range(20)]
        assert all(turn is not None and re.search(told, turn.answer or "") for turn in turns)


def test_descriptions_name_only_what_is_clear() -> None:
    track = replace(RICH, tags={**RICH.tags, "clear": ("flute", "no singing")})
    texts = [
        turn.answer or ""
        for seed in range(40)
        if (turn := describe_at_length(TrackLabels(track), Phrasebook(random.Random(seed))))
    ]
    assert any("flute" in text for text in texts)
    assert not any(re.search("piano|bass|drum", text) for text in texts)
    turns = many(track)
    assert any("piano" in (turn.answer or "") for turn in turns), "other answers know all labels"


def test_a_choir_is_named_once() -> None:
    tags = {"instrument": ("choir",), "ensemble": ("choir",), "voice": ("choir",)}
    for track in (Track("choir", tags=tags), Track("heard", tags={**tags, "clear": ("choir", "singing")})):
        texts = [
            turn.answer
            for seed in range(50)
            if (turn := describe_briefly(TrackLabels(track), Phrasebook(random.Random(seed))))
        ]
        assert "A choir." in texts
        assert all(str(text).count("choir") == 1 for text in texts)


def test_genres_are_said_as_nouns() -> None:
    track = replace(GUESSED, guesses={"genre": ("electronic", "ambient"), "mood": ("calm",)})
    answers = " ".join(str(turn.answer) for turn in many(track))
    assert "sounds like electronic music" in answers
    assert not re.search(r"(sounds? like|call it) (electronic|ambient)(?! music)", answers)


def test_guessed_drums_are_hedged_in_descriptions() -> None:
    texts = [
        turn.answer or ""
        for seed in range(40)
        if (turn := describe_at_length(TrackLabels(GUESSED), Phrasebook(random.Random(seed))))
    ]
    assert any("don't think there are drums" in text for text in texts)
    assert not any(re.search(r"There are (no )?drums", text) for text in texts)


def test_some_questions_are_asked_otherwise() -> None:
    asked = [turn.question for turn in many(RICH)]
    words = wording()["asking"]
    assert any(question.startswith(tuple(words["before"])) for question in asked)
    assert any(question.endswith(tuple(words["after"])) for question in asked)
    assert not any(re.search(r"\(a\)", question) for question in asked), "letters of choices stay capitals"


def test_voices_follow_the_labels() -> None:
    questions = {*wording()["voice"]["questions"], *wording()["instrumental"]["questions"]}
    for track, there in ((RICH, False), (SUNG, True)):
        asked = [turn for turn in many(track) if turn.question in questions]
        assert asked
        for turn in asked:
            assert says_voice(turn.answer or "") is there, turn


def test_guesses_are_hedged() -> None:
    hedge = re.compile(
        r"probably|sounds?|think|would (say|call)|imagine|wouldn't|seems|don't hear|could|might|fit",
        re.IGNORECASE,
    )
    plain = ("facts", "cannot", "pace", "no_music", "caption")
    wordings = {
        question for topic in plain for kind in wording()[topic].values() if isinstance(kind, list) for question in kind
    }
    for turn in many(GUESSED):
        question = turn.question.split("\n")[0]
        if (
            any(text.lower().rstrip("?.") in question.lower() for text in wordings)
            or "Measured" in turn.question
            or "BPM" in turn.question
            or "tempo" in turn.question.lower()
        ):
            continue
        if "(A)" in question or refuses(turn.answer or ""):
            continue
        assert hedge.search(turn.answer or ""), turn


def test_no_music_is_never_described() -> None:
    for turn in many(SPEECH):
        assert re.search(r"no music|isn't music", turn.answer or "", re.IGNORECASE), turn
        assert not named(turn.answer or "")


def test_measured_values_are_read_from_the_prompt() -> None:
    turns = [turn for turn in many(RICH, 400) if "Measured" in turn.question]
    assert turns
    for turn in turns:
        line = turn.question.split("Measured: ")[1]
        value = re.search(r"(tempo|key|loudness|duration) ([^;(]+)", line)
        assert value
        expected = value[2].strip().removesuffix(" BPM").removesuffix(" LUFS")
        if turn.question.split("\n")[0] in PACE_QUESTIONS:
            bpm = re.sub(r"\D", "", expected)
            assert pace_of(float(bpm)) in (turn.answer or "").lower() or bpm in (turn.answer or ""), turn
        else:
            assert expected in (turn.answer or ""), turn
        assert ("(unsure)" in line) == bool(re.search(r"probably|perhaps", turn.answer or "", re.IGNORECASE)), turn


def test_unseen_wordings_are_unseen() -> None:
    def texts(part: object) -> list[str]:
        if isinstance(part, dict):
            return [text for value in part.values() for text in texts(value)]
        return [str(text) for text in part] if isinstance(part, list) else [str(part)]

    trained = {text.lower() for text in texts(wording())}
    assert not trained & {text.lower() for wordings in UNSEEN.values() for text in wordings}


def test_same_seed_same_rows_and_rows_are_what_training_reads() -> None:
    balancer = AnswerBalancer(TRACKS)

    def rows() -> list[dict[str, object]]:
        return list(conversation_rows(RICH, count=3, rng=random.Random(5), balancer=balancer, max_turns=4))

    assert rows() == rows()
    assert all(row["audio"] == "a.flac" and row["turns"] for row in rows())
    assert len({row["id"] for row in rows()}) == 3


def test_balance_evens_a_lopsided_corpus() -> None:
    with_drums = [replace(RICH, id=str(number)) for number in range(90)]
    without = [
        replace(RICH, id=f"n{number}", tags={"instrument": ("piano",)}, absent={"instrument": ("drums",)})
        for number in range(10)
    ]
    balancer, rng = AnswerBalancer([*with_drums, *without]), random.Random(0)
    kept = sum(balancer.keeps("", "drums", True, rng) for _ in range(9000)) / 9000
    assert kept == pytest.approx(10 / 90, abs=0.02)
    assert balancer.keeps("", "drums", False, rng)


def test_each_instrument_is_affirmed_as_often_as_denied() -> None:
    def band(number: int, *names: str) -> Track:
        return Track(f"t{number}", tags={"instrument": names}, absent={"instrument": ("others",)}, source="bands")

    frequent = [band(number, "electric bass", "piano") for number in range(80)]
    rare = [band(100 + number, "trumpet", "piano") for number in range(20)]
    balancer, rng = AnswerBalancer([*frequent, *rare]), random.Random(0)
    counts = {(name, there): 0 for name in ("electric bass", "trumpet") for there in (True, False)}
    for track in [*frequent, *rare] * 40:
        labels = TrackLabels(track)
        drawn = balancer.draw("bands", "presence", labels.present, labels.missing, rng)
        if drawn in counts:
            counts[drawn] += 1
    for name in ("electric bass", "trumpet"):
        yes, no = counts[name, True], counts[name, False]
        assert 0.6 < yes / no < 1.6, counts


def test_balance_evens_within_each_source() -> None:
    drum = [replace(RICH, id=f"d{number}", source="bands") for number in range(50)]
    drum += [replace(RICH, id="n", source="bands", tags={}, absent={"instrument": ("drums",)})]
    drum += [
        replace(RICH, id=f"s{number}", source="solos", tags={}, absent={"instrument": ("drums",)})
        for number in range(50)
    ]
    balancer, rng = AnswerBalancer(drum), random.Random(0)
    kept = sum(balancer.keeps("bands", "drums", True, rng) for _ in range(9000)) / 9000
    assert kept == pytest.approx(1 / 50, abs=0.01)
    alone = sum(balancer.keeps("solos", "drums", False, rng) for _ in range(9000)) / 9000
    assert alone == pytest.approx(0.1, abs=0.02)


def test_missing_leaves_out_what_is_alike() -> None:
    labels = TrackLabels(
        Track("a", tags={"instrument": ("acoustic guitar", "violin")}, absent={"instrument": ("others",)})
    )
    assert not {"electric guitar", "banjo", "strings", "cello"} & set(labels.missing)
    assert {"trumpet", "brass", "piano"} <= set(labels.missing)
    assert {"guitar", "strings", "acoustic guitar", "violin"} == set(labels.present)


def test_a_track_with_guesses_goes_through_json() -> None:
    assert Track.from_dict(RICH.to_dict()) == RICH
    assert Track.from_dict(GUESSED.to_dict()) == GUESSED
