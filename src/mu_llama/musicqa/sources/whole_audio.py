"""Whether a track's audio is as long as it is said to be: one that lost most of it can't bear its labels."""

from __future__ import annotations

import dataclasses

from mu_llama.audio.completeness import find_lost_end
from mu_llama.audio.read import MISSING_S, AudioStream, open_audio
from mu_llama.errors import AudioError
from mu_llama.musicqa.sources.finding import BadTrack
from mu_llama.records import Track

LEAST_SHARE = 0.5
"""Of its sound a track must have so much."""
LEAST_CUT_S = 10.0
"""Seconds that a track must have which was cut off nobody knows where."""


def true_length(stream: AudioStream, *, stated_s: float | None = None) -> tuple[float | None, str | None]:
    """Measure how long a track is, without decoding it unless it looks cut.

    Args:
        stream: of the whole file.
        stated_s: seconds that labels state, where they do.

    Returns:
        Seconds, None where the file doesn't say; and a note for `Track.dropped` if some are missing.

    Raises:
        AudioError: if most of the sound is missing.
    """
    lost = find_lost_end(stream)
    length_s = stream.declared_s if lost is None else lost.end_s
    if length_s is None:
        return None, None
    lengths = [seconds for seconds in (stated_s, None if lost is None else lost.stated_s) if seconds is not None]
    if not lengths:
        if lost is None:
            return length_s, None
        if length_s < LEAST_CUT_S:
            raise AudioError(f"{stream.name}: is cut off after {length_s:.1f} s; copy or download it again")
        return length_s, f"audio: ends early, after {length_s:.1f} s"
    whole_s = max(lengths)
    if length_s < LEAST_SHARE * whole_s:
        raise AudioError(
            f"{stream.name}: has only {length_s:.1f} s of {whole_s:.1f} s, most of its sound is missing; "
            "copy or download it again"
        )
    if lost is not None or whole_s - length_s > MISSING_S:
        return length_s, f"audio: ends early, after {length_s:.1f} s of {whole_s:.1f} s"
    return length_s, None


def with_true_length(track: Track) -> Track | BadTrack:
    """Open a track's audio: one that can't be read or lost most of its sound becomes a bad one, one that lost a little
    gets its true length and a note.
    """
    if track.audio is None:
        return track
    stated_s = track.facts.get("duration_s")
    try:
        with open_audio(track.audio) as stream:
            length_s, note = true_length(stream, stated_s=stated_s if isinstance(stated_s, int | float) else None)
    except AudioError as error:
        return BadTrack(track.id, " ".join(str(error).split()))
    if note is None or length_s is None:
        return track
    return dataclasses.replace(
        track,
        facts={**track.facts, "duration_s": round(length_s, 3)},
        dropped=tuple(dict.fromkeys((*track.dropped, note))),
    )
