"""Measured facts as labels: only those that are nearly sure, kept by content so that none is measured twice."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mu_llama import __version__
from mu_llama.audio.facts import measure_facts
from mu_llama.errors import AudioError
from mu_llama.files import read_lines, to_line
from mu_llama.labels.track import Track
from mu_llama.musicqa.sources.corpus_files import BadTrack

LEAST_CONFIDENCE = 0.8
"""Facts below it are left out."""

LabelFacts = dict[str, float | str]
"""Values by name, as in `Track.facts`."""


def measure_label_facts(audio: Path) -> LabelFacts:
    """Measure the length of a file, and its tempo and key where they are sure.

    Raises:
        AudioError: if it can't be decoded.
        ConfigError: if the libraries aren't installed.
    """
    measured = measure_facts(audio)
    facts: LabelFacts = {"duration_s": round(measured.duration_s, 3)}
    for name, fact in (("tempo_bpm", measured.tempo_bpm), ("key", measured.key)):
        if fact is not None and fact.confidence >= LEAST_CONFIDENCE:
            facts[name] = fact.value
    return facts


class FactsFile:
    """Facts of audio files by their content, one a line, each written as soon as it is measured.

    What another version of this package measured is measured again.

    Args:
        path: the file; made when something is measured. Its last line must be whole: see `records.drop_cut_line`.
        measure: gives the facts of a file that isn't known.
    """

    def __init__(self, path: Path, *, measure: Callable[[Path], LabelFacts] = measure_label_facts) -> None:
        self._path, self._measure = path, measure
        self._version = {"version": __version__, "least_confidence": LEAST_CONFIDENCE}
        self._known: dict[str, LabelFacts] = {}
        for row in read_lines(path):
            if all(row.get(name) == value for name, value in self._version.items()):
                self._known[row["sha256"]] = row["facts"]

    def of(self, audio: Path) -> LabelFacts:
        """Give the facts of a file, measured now if they weren't before.

        Raises:
            AudioError: if it can't be decoded.
            ConfigError: if the libraries aren't installed.
            OSError: if the disk is full or the folder can't be written.
        """
        try:
            with audio.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return self._measure(audio)  # says what is wrong with the file
        if sha256 not in self._known:
            facts = self._measure(audio)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(to_line({"sha256": sha256, **self._version, "facts": facts}))
            self._known[sha256] = facts
        return dict(self._known[sha256])


def with_facts(
    found: Iterable[Track | BadTrack],
    *,
    facts_of: Callable[[Path], LabelFacts] = measure_label_facts,
    on_measured: Callable[[int], None] = lambda _: None,
) -> Iterator[Track | BadTrack]:
    """Add measured tempo and key to tracks whose labels state none; a track that can't be heard becomes a bad one.

    Args:
        found: a corpus.
        facts_of: measures a file, or remembers what was measured.
        on_measured: told after each track with audio how many are done.

    Raises:
        ConfigError: if the libraries aren't installed.
    """
    num_done = 0
    for track in found:
        if isinstance(track, BadTrack) or track.audio is None:
            yield track
            continue
        try:
            facts = facts_of(track.audio)
        except AudioError as error:
            result: Track | BadTrack = BadTrack(track.id, " ".join(str(error).split()))
        else:
            result = dataclasses.replace(track, facts={**facts, **track.facts})
        num_done += 1
        on_measured(num_done)
        yield result
