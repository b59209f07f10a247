"""The scoring of `mini`: the committed tracks can be asked about, and floors are floors."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.mini.__main__ import DATA, Scored
from benchmarks.mini.card import WANTED, table
from benchmarks.mini.reading import contradictions
from benchmarks.mini.scoring import balanced, best_constant, read_features, says_value, shuffled, tagger_score
from benchmarks.mini.tasks import Ask, all_tasks
from mu_llama.files import read_lines
from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues.track_labels import TrackLabels

FIGURES = (
    "solo instrument", "drums", "vocal or instrumental", "choir, orchestra or solo", "genre, rendered", "genre, real",
    "tagger's genres", "energy", "valence", "four choices", "can't tell", "no music",
)  # fmt: skip


@pytest.fixture(scope="module")
def tracks() -> list[Track]:
    return [Track.from_dict(row) for row in read_lines(DATA / "mini_test.jsonl")]


def test_the_fixture_is_whole(tracks: list[Track]) -> None:
    features = read_features(DATA)
    assert features.shape == (len(tracks), 1, 3512)
    assert (features.std(0) > 0).float().mean() > 0.4  # half of MusiCNN's pooled channels are never active
    assert {track.source[-1] for track in tracks} == set("ABCDEFN")
    assert all("measured" in row for row in read_lines(DATA / "mini_test.jsonl"))


def test_every_figure_has_its_questions(tracks: list[Track]) -> None:
    tasks = all_tasks(tracks)
    for name in FIGURES:
        assert len(tasks[name]) >= 20, name
    assert len([name for name in tasks if name.startswith("band: ")]) == 7
    assert len({ask.truth for ask in tasks["solo instrument"]}) >= 12
    for name in ("drums", "tagger's genres", "energy", "four choices", "band: brass"):
        counts = Counter(ask.truth for ask in tasks[name])
        assert max(counts.values()) == min(counts.values()), name
    assert all_tasks(tracks)["drums"][0].question == tasks["drums"][0].question


def yes_no(row: int, truth: str, tagger: float | None) -> Ask:
    return Ask(row, "?", "?", truth, lambda text: text == truth, tagger)


def test_floors() -> None:
    asks = [yes_no(0, "yes", 0.9), yes_no(1, "yes", 0.2), yes_no(2, "no", 0.3), yes_no(3, "no", 0.1)]
    assert best_constant(asks, ["yes", "no", "yes"]) == 50
    assert tagger_score(asks) == 75
    assert tagger_score([yes_no(0, "yes", None)]) is None
    assert balanced([*asks, yes_no(4, "yes", None)], [True, True, False, False, True]) == 50


def test_other_audio_is_by_other_makers() -> None:
    tracks = [Track(str(row), artist=f"artist {row // 3}") for row in range(30)]
    asks = [yes_no(row, "yes", None) for row in range(30)]
    for ask, other in zip(asks, shuffled(asks, tracks, random.Random(0)), strict=True):
        assert tracks[ask.row].group != tracks[other].group


def test_values_are_read_whole() -> None:
    assert says_value("About 60 BPM.", "60 BPM")
    assert not says_value("About 160 BPM.", "60 BPM")
    assert not says_value("It is in A minor.", "A flat minor")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A piece with a piano and a violin.", []),
        ("A track with steel drums.", ["steel drums"]),
        ("It is instrumental. There are no drums.", ["no drums"]),
        ("A trumpet plays.", ["trumpet"]),
        ("A female voice over a piano.", ["voice"]),
        ("Nobody sings.", []),
    ],
)
def test_contradictions(text: str, wrong: list[str]) -> None:
    known = TrackLabels(
        Track(
            "a",
            tags={"instrument": ("piano", "violin", "drums")},
            absent={"instrument": ("others",), "voice": ("voice",)},
        )
    )
    assert contradictions(text, known) == wrong


def test_the_card_has_every_task(tracks: list[Track]) -> None:
    named = {name for name in WANTED if name != "bands"}
    assert named == set(all_tasks(tracks))
    result = json.loads((DATA.parent / "results" / "mini_second.json").read_text())
    lines = table(result).splitlines()
    assert f"**{result['tasks']['drums']['own_audio']}%**" in next(line for line in lines if line.startswith("| drums"))
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    path, asked = tmp_path / "new" / "state.json", {"model": "mini"}
    Scored(path, asked).get("drums", lambda: {"own_audio": 90.0})
    again = Scored(path, asked)
    assert again.get("drums", lambda: pytest.fail("scored twice")) == {"own_audio": 90.0}
    again.get("energy", lambda: {"own_audio": 60.0})
    assert set(json.loads(path.read_text())["scores"]) == {"drums", "energy"}
    with pytest.raises(SystemExit, match="another file"):
        Scored(path, {"model": "other"})
