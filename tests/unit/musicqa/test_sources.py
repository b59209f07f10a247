"""Each corpus in the layouts that users have, good rows and bad ones."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from mu_llama.errors import ConfigError
from mu_llama.files import to_line
from mu_llama.labels.track import Track
from mu_llama.musicqa.measuring import with_true_length
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.sources.corpus_files import AudioFiles, BadTrack, SourceError
from mu_llama.musicqa.statistics import count_tracks
from tests.unit.musicqa import corpora


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


def test_statements_are_parsed_or_dropped_and_named(tmp_path: Path) -> None:
    for number in range(4):
        corpora.tone(tmp_path / f"{number}.wav")
    (tmp_path / "labels.jsonl").write_text(
        json.dumps({"file": "0.wav", "key": "8A", "bpm": "127,99", "licence": "CC BY 4.0", "genre": "House"})
        + "\n"
        + json.dumps({"file": "1.wav", "key": 5, "bpm": 400, "copyright": "2020", "genre": ["17", "Unknown"]})
        + "\n"
        + json.dumps({"file": "2.wav", "instrument": "piano, no drums", "voice": False, "tempo": "very slow, 72 BPM"})
        + "\n"
        + json.dumps({"file": "3.wav", "key": "o", "tags": ["without vocals", "guitar"], "tempo": "99,5"})
    )
    (tmp_path / "3.json").write_text(json.dumps({"initialkey": "Gbmin"}))
    tracks, bad = read("folder", tmp_path)
    assert bad == []
    assert tracks[0].facts == {"duration_s": 0.5, "tempo_bpm": 127.99, "key": "A minor"}
    assert (tracks[0].licence, tracks[0].tags, tracks[0].dropped) == ("CC BY 4.0", {"genre": ("House",)}, ())
    assert (tracks[1].facts, tracks[1].licence, tracks[1].tags) == ({"duration_s": 0.5}, None, {})
    assert tracks[1].dropped == (
        "genre: '17' is no label", "genre: 'Unknown' is no label",
        "tempo_bpm: 400 is no tempo; expected 20 to 300 beats per minute", "key: 5 is no key",
        "licence: '2020' is no known licence",
    )  # fmt: skip
    assert tracks[2].tags == {"instrument": ("piano",), "tempo": ("very slow",), "other": ("no drums", "no voice")}
    assert tracks[2].absent == {"instrument": ("drums",), "voice": ("voice",)}
    assert tracks[2].facts["tempo_bpm"] == 72
    assert tracks[3].tags["instrument"] == ("guitar",)
    assert tracks[3].absent == {"voice": ("voice",)}
    assert tracks[3].facts == {"duration_s": 0.5, "tempo_bpm": 99.5, "key": "F sharp minor"}
    assert [Track.from_dict(json.loads(to_line(track.to_dict()))) for track in tracks] == tracks


def test_what_is_denied_is_counted_as_absent(tmp_path: Path) -> None:
    for number in range(2):
        corpora.tone(tmp_path / f"{number}.wav")
        (tmp_path / f"{number}.json").write_text(json.dumps({"instruments": "no drums, bass"}))
    counts = count_tracks(source_by_name("folder")(tmp_path))
    counts.add(Track("old", tags={"instrument": ("no drums",)}))
    assert counts.tags["instrument"] == {"bass": 2}
    assert counts.absent == {"drums": 3}
    assert counts.to_dict()["absent"] == {"drums": 3}


def test_tracks_that_lost_their_sound_are_bad_and_shorter_ones_keep_their_true_length(tmp_path: Path) -> None:
    for name, share in (("most", 0.05), ("some", 0.9), ("none", 1.0)):
        corpora.tone(tmp_path / f"{name}.flac", seconds=23)
        data = (tmp_path / f"{name}.flac").read_bytes()
        (tmp_path / f"{name}.flac").write_bytes(data[: int(share * len(data))])
        (tmp_path / f"{name}.json").write_text(json.dumps({"genre": "jazz"}))
    tracks, bad = read("folder", tmp_path)
    assert [row.where for row in bad] == ["most.flac"]
    assert re.fullmatch(r"has only 1\.\d s of 23\.0 s, most of its sound is missing; copy .*", bad[0].reason)
    assert [track.id for track in tracks] == ["folder/none.flac", "folder/some.flac"]
    assert tracks[0].facts == {"duration_s": 23.0}
    assert 20 < tracks[1].facts["duration_s"] < 21.5
    assert re.fullmatch(r"audio: ends early, after 2\d\.\d s of 23\.0 s", tracks[1].dropped[0])


def test_audio_of_labelled_corpora_is_looked_at_when_it_is_opened(tmp_path: Path) -> None:
    data = corpora.tone(tmp_path / "whole.flac", seconds=20).read_bytes()
    (tmp_path / "some.flac").write_bytes(data[: int(0.8 * len(data))])
    (tmp_path / "most.flac").write_bytes(data[: int(0.1 * len(data))])
    stated = {"duration_s": 20.0}
    track = Track("a", audio=tmp_path / "whole.flac", facts=stated)
    assert with_true_length(track) == track
    kept = with_true_length(Track("a", audio=tmp_path / "some.flac", facts=stated, dropped=("key: 'o' is no key",)))
    assert isinstance(kept, Track)
    assert kept.facts["duration_s"] == pytest.approx(16, abs=0.4)
    assert [note.partition(":")[0] for note in kept.dropped] == ["key", "audio"]
    assert with_true_length(kept) == kept
    assert isinstance(with_true_length(Track("a", audio=tmp_path / "most.flac", facts=stated)), BadTrack)
    assert isinstance(with_true_length(Track("a", audio=tmp_path / "gone.wav")), BadTrack)


def test_columns_match_in_any_letters(tmp_path: Path) -> None:
    caption = '"A calm piece, for piano"'
    for number, (header, row) in enumerate(
        {
            "File, BPM, Key, Caption": f"a.wav, 128, C# minor, {caption}",
            "FILENAME,Bpm,KEY,caption": f"a.wav,128,C# minor,{caption}",
            '"Audio","BPM","Key","CAPTION"': f'"a.wav","128","C# minor",{caption}',
        }.items()
    ):
        root = tmp_path / str(number)
        corpora.tone(root / "a.wav")
        (root / "labels.csv").write_text(f"{header}\n{row}\n")
        (track,), bad = read("folder", root)
        assert bad == []
        assert track.facts == {"duration_s": 0.5, "tempo_bpm": 128.0, "key": "C sharp minor"}
        assert track.caption == "A calm piece, for piano"
    (root / "labels.csv").write_text("file,caption\na.wav,A calm piece, for piano\n")
    assert [row.reason for row in read("folder", root)[1]] == [
        "has too many cells; expected as many as columns: check its quotes"
    ]
    root = corpora.musiccaps(tmp_path / "caps", 1, audio=False)
    table = root / "musiccaps-public.csv"
    table.write_text(table.read_text().replace("ytid,start_s", "YTID,Start_S", 1))
    assert len(read("musiccaps", root)[0]) == 1


_NFC, _NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("written", "on_disk"), [(_NFC, _NFD), (_NFD, _NFC)])
def test_names_match_in_any_unicode_form(written: str, on_disk: str, tmp_path: Path) -> None:
    corpora.tone(tmp_path / "x" / on_disk / f"{on_disk}.wav")
    (tmp_path / "x" / "labels.csv").write_text(f"file,genre\n{written}/{written}.wav,jazz\n")
    (tmp_path / "x" / on_disk / f"{written}.txt").write_text("A calm piece.")
    (track,), bad = read("folder", tmp_path / "x")
    assert (bad, track.tags, track.caption) == ([], {"genre": ("jazz",)}, "A calm piece.")
    assert track.audio == tmp_path / "x" / on_disk / f"{on_disk}.wav"
    assert AudioFiles(tmp_path / "x").find(written) == track.audio


def test_of_names_in_two_unicode_forms_the_very_one_is_taken(tmp_path: Path) -> None:
    for name in (_NFC, _NFD):
        corpora.tone(tmp_path / f"{name}.wav")
    (tmp_path / "labels.csv").write_text(f"file,genre\n{_NFD}.wav,jazz\n{_NFC}.wav,rock\n")
    tracks, bad = read("folder", tmp_path)
    assert bad == []
    assert {track.id: track.tags["genre"] for track in tracks} == {
        f"folder/{_NFC}.wav": ("rock",), f"folder/{_NFD}.wav": ("jazz",),
    }  # fmt: skip
    assert AudioFiles(tmp_path).find(_NFD) == tmp_path / f"{_NFD}.wav"


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
