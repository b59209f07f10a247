"""The report of a finished build: counts, tokens, reasons of what was rejected or left out, and what to look at."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mu_llama.musicqa.build_folder import ITEMS_FILE, BuildFolder
from mu_llama.musicqa.items import SPLITS, read_items
from mu_llama.musicqa.left_out import LeftOut

if TYPE_CHECKING:
    from mu_llama.musicqa.build import BuildOptions

_KINDS = {
    " names ": "names what labels don't",
    " denies ": "denies what labels name",
    " states ": "states a tempo that labels don't",
    " speaks of its instructions": "speaks of its instructions",
    " has fewer than ": "too short",
    "JSON": "no whole JSON",
    "is in ": "another language",
    "no labels": "no labels",
}


def build_report(folder: BuildFolder, options: BuildOptions) -> dict[str, Any]:
    """Count what a build made, rejected and left out.

    Args:
        folder: with items and rows written.
        options: of the build.
    """
    splits: Counter[str] = Counter()
    groups: set[str] = set()
    questions = 0
    for item in read_items(folder.path / ITEMS_FILE):
        splits[item.split] += 1
        groups.add(item.track.group)
        questions += sum(1 for _ in item.pairs)
    left_out = LeftOut()
    for row in folder.skipped():
        left_out.add_bad(row["where"], row["reason"])
    num_tracks = 0
    for track in folder.tracks():
        num_tracks += 1
        left_out.add(track)
    totals, reasons = _outcomes(folder)
    report: dict[str, Any] = {
        "tracks": num_tracks, "skipped_rows": left_out.num_tracks,
        "accepted": totals["accepted"], "rejected": totals["rejected"], "questions": questions,
        "attempts": totals["num_attempts"], "damaged_replies": totals["num_damaged"],
        "prompt_tokens": totals["prompt_tokens"], "completion_tokens": totals["completion_tokens"],
        "artists": len(groups), "splits": {split: splits[split] for split in SPLITS},
        "empty_splits": _empty_splits(splits, options),
        "rejected_for": dict(reasons.most_common(10)),
        **left_out.to_dict(tracks="skipped", values="dropped_labels"),
    }  # fmt: skip
    if options.price_in is not None or options.price_out is not None:
        prices = (("prompt_tokens", options.price_in), ("completion_tokens", options.price_out))
        report["cost"] = round(sum(totals[name] * (price or 0) for name, price in prices) / 1e6, 4)
    return report


def _outcomes(folder: BuildFolder) -> tuple[Counter[str], Counter[str]]:
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for row in folder.outcomes():
        totals["accepted" if row.get("reply") else "rejected"] += 1
        for name in ("num_attempts", "num_damaged", "prompt_tokens", "completion_tokens"):
            totals[name] += row.get(name) or 0
        reasons.update(_kind_of(reason) for reason in row.get("reasons", ()))
    return totals, reasons


def _kind_of(reason: str) -> str:
    """A reason without what differs from track to track."""
    return next((kind for words, kind in _KINDS.items() if words in reason), reason.split(":")[0][:60])


def _empty_splits(splits: Counter[str], options: BuildOptions) -> list[str]:
    """The splits that were to have tracks and have none."""
    wanted = {"train": True, "validation": options.validation > 0, "test": options.test > 0}
    return [split for split in SPLITS if wanted[split] and not splits[split]]


def empty_split_line(report: dict[str, Any], shares: dict[str, float]) -> str | None:
    """Say which splits are empty and what to do; None where none is.

    Args:
        report: of the build.
        shares: of the artists that go to `validation` and `test`.
    """
    empty = report.get("empty_splits")
    if not empty:
        return None
    drawn = ", ".join(f"--{name} {share:g}" for name, share in shares.items())
    num_artists = report["artists"]
    return (
        f"no track for {' and '.join(empty)}: all tracks of an artist go to one split, and {num_artists} "
        f"{'artist is' if num_artists == 1 else 'artists are'} too few for {drawn}; raise the shares, take another "
        "--seed, or add artists, with another --out"
    )
