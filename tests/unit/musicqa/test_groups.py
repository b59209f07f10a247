"""Splits keep tracks together that share an artist or their audio."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mu_llama.audio.file_names import equal_files
from mu_llama.labels.track import Track
from mu_llama.musicqa.build import BuildOptions, build_data_set, in_this_process
from mu_llama.musicqa.build_folder import BuildFolder
from mu_llama.musicqa.items import content_groups, read_items
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.worker import Rules
from mu_llama.musicqa.writers import make_writer
from mu_llama.musicqa.writers.protocol import WriterSpec
from tests.unit.musicqa import corpora


def track(path: Path, data: bytes, *, name: str, artist: str | None = None) -> Track:
    path.write_bytes(data)
    return Track(name, audio=path, artist=artist)


def test_files_are_equal_by_their_bytes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in "abcde"]
    for path, data in zip(paths, (b"one", b"two", b"one", b"longer", b""), strict=True):
        path.write_bytes(data)
    gone = tmp_path / "gone"
    read: list[Path] = []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args: (read.append(self), original(self, *args))[1])
    a, b, c, d, empty = paths
    assert equal_files([*paths, gone, a]) == {a: a, b: b, c: a, d: d, empty: empty, gone: gone}
    assert set(read) == {a, b, c}, "only files of equal size are read"


def test_groups_join_over_artists_and_audio(tmp_path: Path) -> None:
    tracks = [
        track(tmp_path / "1", b"aa", name="1", artist="X"),
        track(tmp_path / "2", b"bb", name="2", artist="X"),
        track(tmp_path / "3", b"bb", name="3", artist="Y"),
        track(tmp_path / "4", b"cc", name="4", artist="Y"),
        track(tmp_path / "5", b"cc", name="5"),
        track(tmp_path / "6", b"dd", name="6", artist="Z"),
        Track("7"),
    ]
    groups = content_groups(tracks)
    assert groups.of == {"1": "5", "2": "5", "3": "5", "4": "5", "5": "5", "6": "Z", "7": "7"}
    assert groups.num_same_audio == 4
    assert content_groups(reversed(tracks)) == groups
    joined = groups.joined(tracks[0])
    assert (joined.group, joined.artist) == ("5", "X")
    assert Track.from_dict(json.loads(json.dumps(joined.to_dict()))) == joined
    assert groups.joined(tracks[5]) is tracks[5]


def test_two_labels_of_one_file_share_a_group(tmp_path: Path) -> None:
    first = track(tmp_path / "1", b"aa", name="1")
    groups = content_groups([first, Track("2", audio=first.audio)])
    assert groups.of["1"] == groups.of["2"]


def test_a_build_keeps_the_same_audio_in_one_split(tmp_path: Path) -> None:
    for number in range(12):
        corpora.tone(tmp_path / "in" / f"{number}.wav", frequency_hz=220 + 220 * (number == 11))
        (tmp_path / "in" / f"{number}.json").write_text(json.dumps({"genre": "jazz", "artist": f"artist {number}"}))
    report = build_data_set(
        BuildFolder(tmp_path / "out"),
        lambda: source_by_name("folder")(tmp_path / "in"),
        in_this_process(make_writer(WriterSpec("template"), home=tmp_path)),
        BuildOptions(Rules(at_most=True, language=None), validation=0.3, test=0.3),
        identity={},
    )
    assert (report["accepted"], report["same_audio"]) == (12, 11)
    items = list(read_items(tmp_path / "out" / "items.jsonl"))
    assert len({item.split for item in items if item.track.artist != "artist 11"}) == 1
    assert {item.track.group for item in items} == {"artist 0", "artist 11"}
