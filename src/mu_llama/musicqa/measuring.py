"""Measurements of a track's audio: its true length, and tempo and key where the confidence is high."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mu_llama import __version__
from mu_llama.audio.diagnosis import find_lost_end
from mu_llama.audio.facts import measure_facts
from mu_llama.audio.read import AudioStream, open_audio
from mu_llama.errors import AudioError
from mu_llama.files import read_lines, sha256_of, to_line
from mu_llama.labels.track import Track
from mu_llama.musicqa.sources.corpus_files import BadTrack

MIN_SHARE = 0.5
"""Minimum share of its stated length that a track must have."""
MIN_CUT_S = 10.0
"""Minimum length in seconds of a cut-off track whose full length is unknown."""


def true_length(stream: AudioStream) -> tuple[float | None, str | None]:
    """Measure how long a track is, without decoding it unless it looks cut.

    Args:
        stream: of the whole file.

    Returns:
        Seconds, None where the file doesn't say; and a note for `Track.dropped` if some are missing.

    Raises:
        AudioError: if most of the sound is missing.
    """
    lost = find_lost_end(stream)
    if lost is None:
        return stream.declared_s, None
    of = "" if lost.stated_s is None else f" of {lost.stated_s:.1f} s"
    if lost.stated_s is None and lost.end_s < MIN_CUT_S:
        raise AudioError(f"{stream.name}: is cut off after {lost.end_s:.1f} s; copy or download it again")
    if lost.stated_s is not None and lost.end_s < MIN_SHARE * lost.stated_s:
        raise AudioError(
            f"{stream.name}: has only {lost.end_s:.1f} s{of}, most of its sound is missing; copy or download it again"
        )
    return lost.end_s, f"audio: ends early, after {lost.end_s:.1f} s{of}"


def with_true_length(track: Track) -> Track | BadTrack:
    """Open a track's audio: one that can't be read or lost most of its sound becomes a bad one, one that lost a little
    gets its true length and a note.
    """
    if track.audio is None:
        return track
    try:
        with open_audio(track.audio) as stream:
            length_s, note = true_length(stream)
    except AudioError as error:
        return BadTrack(track.id, " ".join(str(error).split()))
    if note is None or length_s is None:
        return track
    return dataclasses.replace(
        track,
        facts={**track.facts, "duration_s": round(length_s, 3)},
        dropped=tuple(dict.fromkeys((*track.dropped, note))),
    )


MIN_CONFIDENCE = 0.8
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
        if fact is not None and fact.confidence >= MIN_CONFIDENCE:
            facts[name] = fact.value
    return facts


class FactsFile:
    """Cache of measured facts by the content of audio files, one a line, each written as soon as it is measured.

    What another version of this package measured is measured again.

    Args:
        path: the file; made when something is measured. Its last line must be whole: see `files.drop_cut_line`.
        measure: gives the facts of a file that isn't known.
    """

    def __init__(self, path: Path, *, measure: Callable[[Path], LabelFacts] = measure_label_facts) -> None:
        self._path, self._measure = path, measure
        self._version = {"version": __version__, "least_confidence": MIN_CONFIDENCE}
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
            sha256 = sha256_of(audio)
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
    corpus: Iterable[Track | BadTrack],
    *,
    facts_of: Callable[[Path], LabelFacts] = measure_label_facts,
    on_measured: Callable[[int], None] = lambda _: None,
) -> Iterator[Track | BadTrack]:
    """Add measured tempo and key to tracks whose labels state none; a track that can't be decoded becomes a bad one.

    Args:
        corpus: its tracks and bad rows.
        facts_of: measures a file, or remembers what was measured.
        on_measured: called after each track with audio, with the number done.

    Raises:
        ConfigError: if the libraries aren't installed.
    """
    num_done = 0
    for track in corpus:
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
