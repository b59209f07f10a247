"""Text that people and programs wrote: what is a key, tempo, licence or label, and what isn't."""

from __future__ import annotations

import pytest

from mu_llama.audio.facts import key
from mu_llama.labels import stated_facts
from mu_llama.labels.stated_facts import parse_key, parse_label, parse_licence, parse_tempo, parse_voice

# The wheel of fifths as Camelot prints it, from 1 on: minor at A, major at B. Open Key has A minor at 1m.
_CAMELOT_MINOR = (
    "A flat", "E flat", "B flat", "F", "C", "G", "D", "A", "E", "B", "F sharp", "C sharp",
)  # fmt: skip
_CAMELOT_MAJOR = (
    "B", "F sharp", "C sharp", "A flat", "E flat", "B flat", "F", "C", "G", "D", "A", "E",
)  # fmt: skip


def test_keys_are_spelled_as_measured_ones() -> None:
    assert stated_facts._TONICS == key._KEYS


@pytest.mark.parametrize("hour", range(1, 13))
def test_the_whole_wheel(hour: int) -> None:
    minor, major = f"{_CAMELOT_MINOR[hour - 1]} minor", f"{_CAMELOT_MAJOR[hour - 1]} major"
    assert {parse_key(text) for text in (f"{hour}A", f"{hour:02}a", f" {hour}A ")} == {minor}
    assert {parse_key(text) for text in (f"{hour}B", f"{hour}b")} == {major}
    open_key = (hour - 8) % 12 + 1
    assert parse_key(f"{open_key}m") == minor
    assert parse_key(f"{open_key}d") == major


@pytest.mark.parametrize(
    ("texts", "key"),
    [
        (
            ("F#m", "Gbm", "Gbmin", "F♯ minor", "f sharp minor", "F-sharp Minor", "fis-Moll", "Fis moll"),
            "F sharp minor",
        ),
        (("A minor", "Am", "am", "A Min", "a-moll", "8A / Am", "Am (8A)", "A minor - 1m"), "A minor"),
        (("Eb", "E♭ major", "E flat major", "D#maj", "Es-Dur", "5B"), "E flat major"),
        (("B", "B major", "H-Dur", "Cb major", "1B"), "B major"),
        (("B-Dur", "Bb", "A# Major", "b flat major"), "B flat major"),
        (("h-Moll", "Bm", "B minor"), "B minor"),
        (("As-Dur", "Ab", "G#maj"), "A flat major"),
        (("E#", "F", "F-Dur"), "F major"),
    ],
)
def test_one_key_in_many_spellings(texts: tuple[str, ...], key: str) -> None:
    assert {text: parse_key(text) for text in texts} == dict.fromkeys(texts, key)


@pytest.mark.parametrize(
    "text",
    ["o", "", "5", 5, None, True, "13A", "0A", "H", "a", "b", "bb", "Am/Em", "Am7", "D dorian", "The key is nice",
     "A major A", "unknown", "all", "it begins in A minor and ends elsewhere"],
)  # fmt: skip
def test_what_is_no_key(text: object) -> None:
    assert parse_key(text) is None


@pytest.mark.parametrize(
    ("value", "bpm"),
    [
        ("127,99", 127.99), ("128 BPM", 128), ("128.0", 128), ("128bpm", 128), (" 96 beats per minute", 96), (90, 90),
        (90.5, 90.5), ("~120", 120), ("ca. 120", 120), ("♩ = 72", 72), ("BPM: 140", 140), ("20", 20), ("300", 300),
        ("0", None), (0, None), ("999", None), ("400 BPM", None), (12800, None), ("fast", None), ("120-125", None),
        ("-120", None), ("1e2", None), ("nan", None), (float("inf"), None), (True, None), (None, None), ("", None),
        ("120 and 90", None), ([120], None),
    ],
)  # fmt: skip
def test_tempi(value: object, bpm: float | None) -> None:
    assert parse_tempo(value) == bpm


@pytest.mark.parametrize(
    "text",
    ["CC BY 4.0", "CC0-1.0", "cc-by-nc-sa", "CC_BY_4.0", "Creative Commons Attribution",
     "https://creativecommons.org/licenses/by/4.0/", "Public Domain", "MIT", "GPLv3", "GPL-3.0-or-later",
     "BSD-3-Clause", "(C) 2020 A Band. All rights reserved.", "Attribution-NonCommercial 3.0 International",
     "Free Art License", "internal use only", "Licensed under the terms of the label"],
)  # fmt: skip
def test_licences(text: str) -> None:
    assert parse_licence(text) == text


@pytest.mark.parametrize(
    "text", ["2020", 2020, "(c) 2020 A Band", "A Band", "Big Mit Records", "℗ 2019", "CC Rider", "", None]
)
def test_what_is_no_licence(text: object) -> None:
    assert parse_licence(text) is None


@pytest.mark.parametrize(
    "text", ["17", "(17)", "Unknown", "other", "n/a", "?", "-", "http://a.b/c", "word " * 9, "1980"]
)
def test_what_is_no_label(text: str) -> None:
    assert parse_label(text) is None


def test_labels_and_voices() -> None:
    assert [parse_label(text) for text in (" Deep  House", "80s", "R&B", "ジャズ")] == [
        "Deep House",
        "80s",
        "R&B",
        "ジャズ",
    ]
    assert [parse_voice(text) for text in ("Yes", "True", "none", "False", "0", "female", "5")] == [
        True, True, False, False, False, "female", None,
    ]  # fmt: skip
