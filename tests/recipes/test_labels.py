"""Which words hold of a track, which don't, and which are unknown."""

from __future__ import annotations

from mu_llama.labels.track import Track
from recipes.mini.labels import GROUPS, labels_of

WHOLE = {"instrument": ("others",)}


def test_a_solo_denies_what_is_like_it_and_a_band_does_not() -> None:
    solo = labels_of(Track("a", tags={"instrument": ("violin",), "ensemble": ("solo",)}, absent=WHOLE))
    band = labels_of(Track("a", tags={"instrument": ("violin", "piano"), "ensemble": ("band",)}, absent=WHOLE))
    assert solo["violin"]
    assert solo["strings"]
    assert not solo["cello"]
    assert solo["solo"]
    assert not solo["band"]
    assert "cello" not in band
    assert not band["trumpet"]
    assert band["piano"]


def test_a_choir_in_a_band_is_there_and_a_string_orchestra_is_an_orchestra() -> None:
    assert labels_of(Track("a", tags={"instrument": ("choir", "piano"), "ensemble": ("band",)}))["choir"]
    strings = labels_of(Track("a", tags={"ensemble": ("string orchestra",)}))
    assert strings["orchestra"]
    assert strings["string orchestra"]
    assert not strings["solo"]


def test_what_is_not_known_is_left_out() -> None:
    found = labels_of(Track("a", guesses={"genre": ("jazz",)}, doubts={"genre": ("metal",)}))
    assert found["jazz"]
    assert not found["metal"]
    assert not {"folk", "drums", "piano", "calm", "singing"} & found.keys()


def test_speech_has_no_labels_of_music() -> None:
    assert labels_of(Track("a", tags={"sound": ("speech",)})) == {"music": False, "speech": True, "noise": False}


def test_no_word_stands_for_two_things() -> None:
    words = [word for name, group in GROUPS.items() if name != "ensemble" for word in group]
    assert len(words) == len(set(words))
