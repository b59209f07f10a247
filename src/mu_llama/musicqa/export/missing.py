"""Audio that isn't where a data set says it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mu_llama.musicqa.export.staging import ExportError
from mu_llama.musicqa.items import Item
from mu_llama.musicqa.left_out import printable

_MOST_NAMED = 3


def missing_audio(items: Iterable[Item]) -> list[str]:
    """Name the tracks whose audio file isn't there, each with the path; tracks that never had one are fine."""
    return [
        f"{item.track.id}: {item.track.audio}: there is no such file"
        for item in items
        if item.track.audio is not None and not item.track.audio.is_file()
    ]


def missing_audio_error(missing: Sequence[str]) -> ExportError:
    """Say which tracks can't be exported with their audio, and what to do."""
    named = "; ".join(map(printable, missing[:_MOST_NAMED])) + ("; ..." if len(missing) > _MOST_NAMED else "")
    count = "1 track has" if len(missing) == 1 else f"{len(missing)} tracks have"
    return ExportError(
        f"{count} no audio that can be read ({named}); say with --root where the corpus is now, or take "
        "--allow-missing-audio to go on without it"
    )
