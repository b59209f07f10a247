"""Each corpus in the layouts that users have, good rows and bad ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mu_llama.errors import ConfigError
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.sources.finding import BadTrack, SourceError
from mu_llama.records import Track, to_line
from tests.musicqa import corpora


def read(name: str, root: Path) -> tuple[list[Track], list[BadTrack]]:
    found = list(source_by_name(name)(root))
    return [row for row in found if isinstance(row, Track)], [row for row in found if isinstance(row, BadTrack)]


def test_musiccaps(tmp_path: Path) -> None:
    root = corpora.musiccaps(tmp_path, 3)
    os.rename(root / "[video00001]-[30-40].wav", root / "video00001-30-40.wav")  # noqa: PTH104
    os.remove(root / "[video00002]-[30-40].wav")  # noqa: PTH107
    tracks, bad = read("musiccaps", root)
    assert bad == []
    assert [track.id for track in tracks] == [f"musiccaps/video0000{n}-30-40" for n in range(3)]
    assert [track.audio and track.audio.name for track in tracks] == [
        "[video00000]-[30-40].wav", "video00001-30-40.wav", None,
    ]  # fmt: skip
    assert len(tracks[0].tags["instrument"]) == 2
    assert tracks[0].facts == {"duration_s": 10.0}
    assert read("musiccaps", root / "musiccaps-public.csv") == (tracks, bad)


def test_musiccaps_keeps_good_rows_beside_bad_ones(tmp_path: Path) -> None:
    path = corpora.musiccaps(tmp_path, 3, audio=False) / "musiccaps-public.csv"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("[", "(broken", 1)
    path.write_text("\n".join([*lines, lines[1], "short,1"]) + "\n")
    tracks, bad = read("musiccaps", path)
    assert [track.id[-13:] for track in tracks] == ["eo00000-30-40", "eo00002-30-40"]
    assert [row.where for row in bad] == [
        "musiccaps-public.csv, line 3", "musiccaps/video00000-30-40", "musiccaps-public.csv, line 6",
    ]  # fmt: skip
    assert "came before" in bad[1].reason


@pytest.mark.parametrize("nested", [True, False])
def test_magnatagatune(nested: bool, tmp_path: Path) -> None:
    tracks, bad = read("magnatagatune", corpora.magnatagatune(tmp_path, nested=nested))
    assert bad == []
    assert [track.id for track in tracks] == ["magnatagatune/2", "magnatagatune/6", "magnatagatune/10"]
    assert all(track.audio is not None and track.audio.is_file() for track in tracks)
    assert [track.artist for track in tracks] == ["american bach soloists"] * 2 + ["ensemble mirable"]
    assert tracks[0].tags["instrument"] == ("violin", "strings")
    assert "no vocals" in tracks[0].tags["other"]
    assert tracks[2].facts == {"duration_s": 29.0}


def test_mtg_jamendo(tmp_path: Path) -> None:
    tracks, bad = read("mtg-jamendo", corpora.mtg_jamendo(tmp_path))
    assert bad == []
    assert [track.id for track in tracks] == ["mtg-jamendo/track_0000214", "mtg-jamendo/track_0000382"]
    assert tracks[0].audio == tmp_path / "14" / "214.low.mp3"
    assert tracks[1].audio is None
    assert tracks[0].tags["instrument"] == ("acoustic guitar",)
    assert tracks[0].tags["voice"] == ("voice",)
    assert tracks[1].tags["mood"] == ("happy", "film")


def test_a_folder_with_tags_sidecars_and_nothing(tmp_path: Path) -> None:
    corpora.tone(tmp_path / "a" / "one.wav")
    corpora.tone(tmp_path / "two.wav")
    corpora.tone(tmp_path / "three.wav")
    corpora.tone(tmp_path / "four.flac")
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / "broken.mp3").write_bytes(b"no audio at all")
    (tmp_path / "labels.csv").write_text(
        'file,genre,instruments,bpm,artist,tags\na/one.wav,"rock; blues","guitar, drums",120,Somebody,weird\n'
        "gone.wav,rock,,,,\n,rock,,,,\n"
    )
    (tmp_path / "two.txt").write_text("A calm piece\nfor piano.")
    (tmp_path / "three.json").write_text(json.dumps({"genre": ["jazz"], "key": "A minor", "licence": "CC0-1.0"}))
    tracks, bad = read("folder", tmp_path)
    by_id = {track.id: track for track in tracks}
    assert set(by_id) == {"folder/a/one.wav", "folder/two.wav", "folder/three.wav", "folder/four.flac"}
    one = by_id["folder/a/one.wav"]
    assert one.tags == {"genre": ("rock", "blues"), "instrument": ("guitar", "drums"), "other": ("weird",)}
    assert one.facts == {"duration_s": 0.5, "tempo_bpm": 120.0}
    assert one.artist == "Somebody"
    assert by_id["folder/two.wav"].caption == "A calm piece for piano."
    assert by_id["folder/three.wav"].facts["key"] == "A minor"
    assert by_id["folder/three.wav"].licence == "CC0-1.0"
    assert {row.where for row in bad} == {"broken.mp3", "gone.wav", "labels.csv, line 4"}


def test_a_files_own_tags_are_read(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "tagged.mp3"), "w") as container:
        container.metadata.update({"genre": "Jazz", "artist": "A Trio", "TBPM": "96", "comment": "rock"})
        stream = container.add_stream("mp3", rate=44100)
        import numpy as np

        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), dtype=np.float32) + 0.1, format="fltp", layout="mono")
        frame.rate = 44100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    (found,), bad = read("folder", tmp_path)
    assert bad == []
    assert found.tags == {"genre": ("Jazz",)}
    assert found.artist == "A Trio"
    assert found.facts["tempo_bpm"] == 96.0


def test_strange_sidecars_and_names_cost_one_track(tmp_path: Path) -> None:
    corpora.tone(tmp_path / "a.wav")
    corpora.tone(tmp_path / "cafe.wav").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    (tmp_path / "a.json").write_text("[" * 100_000)
    tracks, bad = read("folder", tmp_path)
    assert [row.where for row in bad] == ["a.wav"]
    (track,) = tracks
    assert Track.from_dict(json.loads(to_line(track.to_dict()).encode("utf-8"))) == track


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("musiccaps", {}, "holds no musiccaps-public.csv or musiccaps.csv; expected the label file of MusicCaps"),
        ("musiccaps", {"musiccaps-public.csv": "ytid,start_s\na,1\n"}, "lacks the columns end_s, aspect_list, caption"),
        ("musiccaps", {"musiccaps-public.csv": "ytid;start_s;end_s;aspect_list;caption\n"}, "separated by semicolons"),
        ("musiccaps", {"musiccaps-public.csv": ""}, "it has: none"),
        ("magnatagatune", {"annotations_final.csv": "clip_id,a,mp3_path\n"}, "separated by commas; expected tabs"),
        ("mtg-jamendo", {"autotagging.tsv": "TRACK_ID\tPATH\n"}, "lacks the columns ARTIST_ID, ALBUM_ID, DURATION"),
    ],
)
def test_a_corpus_that_can_not_be_read_says_why(name: str, files: dict[str, str], message: str, tmp_path: Path) -> None:
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    with pytest.raises(SourceError, match=message):
        read(name, tmp_path)


def test_bad_rows_of_tables_are_named(tmp_path: Path) -> None:
    root = corpora.magnatagatune(tmp_path / "mtt")
    table = root / "annotations_final.csv"
    table.write_text(table.read_text().replace("\n6\t1", "\n6\t7"))
    assert [str(row) for row in read("magnatagatune", root)[1]] == [
        "annotations_final.csv, line 3: expected 0 or 1 under 'violin', not '7'"
    ]
    root = corpora.mtg_jamendo(tmp_path / "mtg")
    table = root / "raw_30s_cleantags_50artists.tsv"
    table.write_text(table.read_text() + "track_1\tartist\nt\ta\tb\tp.mp3\tlong" + "\tgenre---rock" * 5 + "\n")
    assert [row.where[-6:] for row in read("mtg-jamendo", root)[1]] == ["line 5", "line 6"]


def test_unknown_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of: musiccaps, magnatagatune, mtg-jamendo, folder"):
        source_by_name("audioset")
    with pytest.raises(SourceError, match="no such folder"):
        read("folder", tmp_path / "gone")
