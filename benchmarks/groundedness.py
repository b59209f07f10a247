"""What the groundedness check says of MusicCaps' own captions, and of those of the next clip."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measure import write_result
from mu_llama.labels.grounding import contradictions, labels_of
from mu_llama.labels.track import Track
from mu_llama.musicqa.sources import source_by_name


def main() -> None:
    """Check each caption against its own labels (aspects and caption) and against another clip's."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.groundedness musiccaps-public.csv")
    tracks = [item for item in source_by_name("musiccaps")(Path(sys.argv[1])) if isinstance(item, Track)]
    labels = [labels_of(track) for track in tracks]
    num_own = sum(bool(contradictions(track.caption or "", one)) for track, one in zip(tracks, labels, strict=True))
    turned = [*labels[1:], labels[0]]
    other = sum(bool(contradictions(track.caption or "", one)) for track, one in zip(tracks, turned, strict=True))
    count = len(tracks)
    what = "share of MusicCaps' captions that the check calls contradictory"
    result = {"captions": count, "own_labels": round(num_own / count, 4), "next_clips_labels": round(other / count, 4)}
    write_result("groundedness", {"what": what, **result})


if __name__ == "__main__":
    main()
