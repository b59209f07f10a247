"""Facts are measured once for each content, whatever happens to the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu_llama.errors import AudioError
from mu_llama.files import drop_cut_line, read_lines
from mu_llama.labels.track import Track
from mu_llama.musicqa.measuring import FactsFile, LabelFacts, with_facts
from mu_llama.musicqa.sources.corpus_files import BadTrack


def test_a_killed_measuring_goes_on_by_content(tmp_path: Path) -> None:
    measured: list[str] = []

    def measure(audio: Path) -> LabelFacts:
        if audio.read_text() == "stop":
            raise KeyboardInterrupt
        measured.append(audio.name)
        return {"duration_s": float(len(measured))}

    for number in range(4):
        (tmp_path / f"{number}.wav").write_text("stop" if number == 2 else str(number))
    tracks = [Track(str(number), tmp_path / f"{number}.wav") for number in range(4)]
    done: list[int] = []
    facts = FactsFile(tmp_path / "facts.jsonl", measure=measure)
    with pytest.raises(KeyboardInterrupt):
        list(with_facts(tracks, facts_of=facts.of, on_measured=done.append))
    assert (measured, done) == (["0.wav", "1.wav"], [1, 2])
    with (tmp_path / "facts.jsonl").open("a") as file:
        file.write('{"sha256": "cut o')
    drop_cut_line(tmp_path / "facts.jsonl")
    (tmp_path / "2.wav").write_text("2")
    (tmp_path / "0.wav").rename(tmp_path / "renamed.wav")
    tracks[0] = Track("0", tmp_path / "renamed.wav")
    facts = FactsFile(tmp_path / "facts.jsonl", measure=measure)
    rows = list(with_facts(tracks, facts_of=facts.of))
    assert [row.facts["duration_s"] for row in rows if isinstance(row, Track)] == [1, 2, 3, 4]
    assert measured == ["0.wav", "1.wav", "2.wav", "3.wav"], "a new name is no new content"
    (tmp_path / "3.wav").write_text("other")
    assert facts.of(tmp_path / "3.wav") == {"duration_s": 5}
    assert len(list(read_lines(tmp_path / "facts.jsonl"))) == 5


def test_a_file_that_is_gone_or_damaged_costs_one_track(tmp_path: Path) -> None:
    def measure(audio: Path) -> LabelFacts:
        raise AudioError(f"{audio.name}: is none")

    (tmp_path / "a.wav").write_text("x")
    facts = FactsFile(tmp_path / "facts.jsonl", measure=measure)
    rows = list(with_facts([Track("a", tmp_path / "a.wav"), Track("b", tmp_path / "b.wav")], facts_of=facts.of))
    assert rows == [BadTrack("a", "a.wav: is none"), BadTrack("b", "b.wav: is none")]
    assert not (tmp_path / "facts.jsonl").exists(), "tried again next time"
