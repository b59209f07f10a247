"""Terms in sentences and tags, and whether a text agrees with its labels."""

from __future__ import annotations

import pytest

from mu_llama.labels.grounding import contradictions, labels_of
from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import CATEGORIES, find_mentions, terms, terms_of_tag


def names(text: str) -> list[str]:
    return [mention.term.name for mention in find_mentions(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A grand piano and two violins.", ["piano", "violin"]),
        ("Hip hop with an 808 and drum & bass", ["hip-hop", "drum machine", "drum and bass"]),
        ("A HIP-HOP beat", ["hip-hop"]),
        ("bass, guitar", ["bass", "guitar"]),
        ("bass guitar", ["bass guitar"]),
        ("a piano-like sound, non-vocal", []),
        ("in the house of my soul", []),
        ("house music with soul", ["house"]),
        ("r&b and rock'n'roll", ["r&b", "rock and roll"]),
        ("Fast-paced, at a slow tempo", ["fast", "slow"]),
        ("pianos;drums", ["piano", "drums"]),
        ("", []),
    ],
)
def test_terms_in_sentences(text: str, expected: list[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("soul", ["soul"]), ("man", ["male voice"]), ("female", ["female voice"]), ("soft rock", ["soft rock"]),
     ("groovy bass line", ["groovy", "bass"]), ("unheard of", [])],
)  # fmt: skip
def test_terms_of_tags(tag: str, expected: list[str]) -> None:
    assert [term.name for term in terms_of_tag(tag)] == expected


def test_the_vocabulary_fits_together() -> None:
    for name, term in terms().items():
        assert term.category in CATEGORIES
        assert name not in term.broader
        assert all(terms()[broader] for broader in term.broader)
        assert terms_of_tag(name)[0].name == name


def track(*tags: str, caption: str | None = None, **facts: float) -> Track:
    return Track("x", tags={"other": tags}, caption=caption, facts=facts)


@pytest.mark.parametrize(
    ("labels", "text", "problem"),
    [
        (track("piano"), "Strings play.", "names strings, but the labels name piano"),
        (track("piano"), "There is no piano.", "denies piano"),
        (track("electric guitar"), "An acoustic guitar plays.", "names acoustic guitar"),
        (track("no drums", "piano"), "A piano and drums.", "names drums, which the labels rule out"),
        (track("instrumental"), "A woman singing softly.", "names female voice, which the labels rule out"),
        (track("female voice"), "It is instrumental.", "says that there is no voice"),
        (track("female voice"), "A male singer.", "names male voice, but the labels name female voice"),
        (track("jazz"), "A metal song.", "names metal, but the labels name jazz"),
        (track("slow tempo"), "A fast tempo drives it.", "names fast"),
        (track(tempo_bpm=170.0), "It is slow.", "calls 170 beats per minute slow"),
        (track(tempo_bpm=70.0), "About 90 BPM.", "states 90 beats per minute, but the labels say 70"),
        (track("piano"), "It has 120 bpm.", "states 120 beats per minute, which no label says"),
        (track("female singer"), "A man sings a melody.", "names male voice"),
        (track("drums"), "Drums are missing.", "denies drums"),
        (track("drums"), "The drums are absent from the mix.", "denies drums"),
        (track("drums"), "Drums cannot be heard.", "denies drums"),
        (track(tempo_bpm=120.0), "A tempo of 140 is used.", "states 140 beats per minute"),
        (track(tempo_bpm=120.0), "A slow tempo.", "calls 120 beats per minute slow"),
        (track("slow tempo"), "A brisk pace.", "names fast"),
        (track("not rock", "jazz"), "A rock song.", "names rock, which the labels rule out"),
        (track(caption="No guitar is heard. A flute plays."), "A guitar.", "names guitar, which the labels rule out"),
    ],
)  # fmt: skip
def test_contradictions(labels: Track, text: str, problem: str) -> None:
    found = contradictions(text, labels_of(labels))
    assert len(found) == 1, found
    assert problem in found[0]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (track("violin"), "Strings, or rather a violin; no piano."),
        (track("guitar"), "An acoustic guitar."),
        (track("techno"), "An electronic track."),
        (track("piano"), "A jazz ballad with singing."),  # nothing is known of genre and voice
        (track("piano"), "No drums, no guitar or bass."),
        (track("female voice", "piano"), "It isn't instrumental but sung by a woman, with a piano and no drums."),
        (track(tempo_bpm=70.0), "Around 140 beats per minute, or 70 BPM; slow."),
        (track("no other instruments", "piano"), "There are no other instruments; a piano plays alone."),
        (track("no voices"), "Vocals are absent. Singing is not heard."),
        (track("piano"), "The piano isn't alone, and it is not loud."),
        (track("not opera"), "Not an opera."),
        (track("no vocals"), "Nobody sings. No voice is heard, and there is no singing."),
    ],
)
def test_what_agrees(labels: Track, text: str) -> None:
    assert contradictions(text, labels_of(labels)) == []


def test_strict_refuses_what_no_label_speaks_of() -> None:
    labels = labels_of(track("piano"))
    assert contradictions("A jazz piece for piano.", labels) == []
    assert contradictions("A jazz piece for piano.", labels, strict=True) == [
        "names jazz, but the labels name nothing of the kind"
    ]


def test_tags_that_contradict_one_another_keep_what_is_named() -> None:
    labels = labels_of(track("no guitar", "acoustic guitar"))
    assert "acoustic guitar" in labels.named
    assert contradictions("An acoustic guitar.", labels) == []
