"""Whether a track's audio is as long as its file says: one that lost most of it can't bear its labels."""

from __future__ import annotations

import dataclasses

from mu_llama.audio.diagnosis import find_lost_end
from mu_llama.audio.read import AudioStream, open_audio
from mu_llama.errors import AudioError
from mu_llama.labels.track import Track
from mu_llama.musicqa.sources.corpus_files import BadTrack

LEAST_SHARE = 0.5
"""Of its sound a track must have so much."""
LEAST_CUT_S = 10.0
"""Seconds that a track must have which was cut off nobody knows where."""


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
    if lost.stated_s is None and lost.end_s < LEAST_CUT_S:
        raise AudioError(f"{stream.name}: is cut off after {lost.end_s:.1f} s; copy or download it again")
    if lost.stated_s is not None and lost.end_s < LEAST_SHARE * lost.stated_s:
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
