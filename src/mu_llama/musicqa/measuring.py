"""Measured facts as labels: only those that are nearly sure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from mu_llama.audio.facts import measure_facts
from mu_llama.errors import AudioError
from mu_llama.musicqa.sources.finding import BadTrack
from mu_llama.records import Track

LEAST_CONFIDENCE = 0.8
"""Facts below it are left out."""


def with_facts(found: Iterable[Track | BadTrack]) -> Iterator[Track | BadTrack]:
    """Add measured tempo and key to tracks whose labels state none; a track that can't be heard becomes a bad one.

    Raises:
        ConfigError: if the libraries aren't installed.
    """
    for track in found:
        if isinstance(track, BadTrack) or track.audio is None:
            yield track
            continue
        try:
            measured = measure_facts(track.audio)
        except AudioError as error:
            yield BadTrack(track.id, " ".join(str(error).split()))
            continue
        facts: dict[str, float | str] = {"duration_s": round(measured.duration_s, 3)}
        for name, fact in (("tempo_bpm", measured.tempo_bpm), ("key", measured.key)):
            if fact is not None and fact.confidence >= LEAST_CONFIDENCE:
                facts[name] = fact.value
        yield dataclasses.replace(track, facts={**facts, **track.facts})
