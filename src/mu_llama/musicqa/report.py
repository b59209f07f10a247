"""What a corpus or a build left out, by reason, and the report of a finished build."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mu_llama.labels.track import Track
from mu_llama.musicqa.build_folder import ITEMS_FILE, BuildFolder
from mu_llama.musicqa.items import SPLITS, read_items
from mu_llama.musicqa.sources.corpus_files import BadTrack

if TYPE_CHECKING:
    from mu_llama.musicqa.build import BuildOptions


_MAX_NAMED = 5
"""How many are named where only the first few are."""
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_IN_BRACKETS = re.compile(r"\s*\([^()]*\)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LONGEST_REASON, _MAX_REASONS = 80, 20


@dataclass
class LeftOut:
    """Counts of what is left out, and the first few by name."""

    num_tracks: int = 0
    """Tracks and rows that can't be used."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Their reasons with counts."""
    first_tracks: list[str] = field(default_factory=list)
    """The first few of them, with their reasons."""
    num_values: int = 0
    """Values left out of the labels of tracks that are used, and notes on their audio."""
    num_tracks_with_values: int = 0
    """Tracks that have such values."""
    values: Counter[str] = field(default_factory=Counter)
    """Such values by their field and reason."""
    first_values: list[str] = field(default_factory=list)
    """The first few of them, each with its track."""

    def add(self, row: Track | BadTrack) -> None:
        """Count what is left out of a track, or all of it."""
        if isinstance(row, BadTrack):
            self.add_bad(row.where, row.reason)
            return
        self.num_tracks_with_values += bool(row.dropped)
        for text in row.dropped:
            self.num_values += 1
            self.values[kind_of_reason(text)] += 1
            if len(self.first_values) < _MAX_NAMED:
                self.first_values.append(f"{row.id}: {text}")

    def add_bad(self, where: str, reason: str) -> None:
        """Count a track or row that can't be used."""
        self.num_tracks += 1
        self.reasons[kind_of_reason(reason, where=where)] += 1
        if len(self.first_tracks) < _MAX_NAMED:
            self.first_tracks.append(f"{where}: {reason}")

    def to_dict(self, *, tracks: str, values: str) -> dict[str, Any]:
        """Give plain values for JSON.

        Args:
            tracks: how the keys about whole tracks begin.
            values: how those about single values begin.
        """
        return {
            f"{tracks}_for": _top_reasons(self.reasons),
            f"{tracks}_first": self.first_tracks,
            values: self.num_values,
            f"{values}_tracks": self.num_tracks_with_values,
            f"{values}_for": _top_reasons(self.values),
            f"{values}_first": self.first_values,
        }


def _top_reasons(reasons: Counter[str]) -> dict[str, int]:
    shown = dict(reasons.most_common(_MAX_REASONS))
    num_others = reasons.total() - sum(shown.values())
    return shown | ({"other reasons": num_others} if num_others else {})


def kind_of_reason(reason: str, *, where: str = "") -> str:
    """Give a reason without what differs from track to track: names, quoted values, numbers, details, advice.

    Example:
        >>> kind_of_reason("a/13.flac: holds 0.6 of 23.0 seconds (cut off); copy it again", where="folder/a/13.flac")
        'holds N of N seconds'
    """
    text = reason.split(";")[0]
    before, colon, after = text.partition(": ")
    # A message about a file begins with its path, which may hold all signs but ends like the track's own name.
    if colon and ("/" in before or "\\" in before or "." in before or before == where):
        text = after
    text = _NUMBER.sub("N", _QUOTED.sub("...", _IN_BRACKETS.sub("", text)))
    return " ".join(text.split())[:_LONGEST_REASON]


def left_out_lines(counts: dict[str, Any], *, tracks: str, values: str, where: str) -> list[str]:
    """Write the lines of `LeftOut.to_dict` for people.

    Args:
        counts: plain values.
        tracks: as there.
        values: as there.
        where: says where all are named, such as `all in qa/skipped.jsonl`.
    """
    lines = [f"  {count} x left out: {reason}" for reason, count in counts.get(f"{tracks}_for", {}).items()]
    lines += [f"    {text}" for text in counts.get(f"{tracks}_first", ())]
    if counts.get(values):
        lines.append(f"  {counts[values]} values left out of the labels of {counts[f'{values}_tracks']} tracks")
        lines += [f"  {count} x {reason}" for reason, count in counts[f"{values}_for"].items()]
        lines += [f"    {text}" for text in counts[f"{values}_first"]]
    return [*map(printable, lines), f"  ({where})"] if lines else []


def printable(text: str) -> str:
    """Replace characters that no terminal should get, such as control codes and undecodable bytes, by `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


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


def build_report(folder: BuildFolder, options: BuildOptions, *, num_same_audio: int) -> dict[str, Any]:
    """Count what a build made, rejected and left out.

    Args:
        folder: with items and rows written.
        options: of the build.
        num_same_audio: tracks whose audio another track has, too.
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
    report["same_audio"] = num_same_audio
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
    """Give the kind of a rejection."""
    return next((kind for words, kind in _KINDS.items() if words in reason), reason.split(":")[0][:60])


def _empty_splits(splits: Counter[str], options: BuildOptions) -> list[str]:
    """Name the splits without tracks whose share isn't 0."""
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
        f"no track for {_joined(empty)}: all tracks of an artist go to one split, and {num_artists} "
        f"{'artist is' if num_artists == 1 else 'artists are'} too few for {drawn}; raise the shares, take another "
        "--seed, or add artists, with another --out"
    )


def _joined(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    Example:
        >>> _joined(["train", "validation", "test"])
        'train, validation and test'
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def summary_lines(report: dict[str, Any], shares: dict[str, float], out: Path) -> list[str]:
    """Say for people what a build made and left out, and the commands to train on it and to export it.

    Args:
        report: of the build.
        shares: of the artists that go to `validation` and `test`.
        out: folder of the build.
    """
    splits = ", ".join(f"{count} {name}" for name, count in report["splits"].items())
    lines = [
        f"{report['accepted']} of {report['tracks']} tracks written ({splits}), {report['questions']} questions",
        f"{report['rejected']} rejected, {report['skipped_rows']} skipped, {report['damaged_replies']} replies damaged",
    ]
    if report["completion_tokens"]:
        cost = f", cost {report['cost']}" if "cost" in report else ""
        lines.append(f"{report['prompt_tokens']} tokens read, {report['completion_tokens']} written{cost}")
    lines += [f"  {count} x rejected: {reason}" for reason, count in report["rejected_for"].items()]
    names = {"skipped_for": "skipped.jsonl", "dropped_labels": "dropped.jsonl"}
    where = " and ".join(str(out / file) for name, file in names.items() if report.get(name))
    lines += left_out_lines(report, tracks="skipped", values="dropped_labels", where=f"all in {where}")
    if report.get("same_audio"):
        lines.append(f"{report['same_audio']} tracks have the same audio as another; each such group is in one split")
    empty = empty_split_line(report, shares)
    lines += [f"warning: {empty}"] if empty else []
    if not report["accepted"]:  # nothing to train on, nor to export
        return lines
    beside = out.with_name(f"{out.name}-huggingface") if out.name not in ("", "..") else Path("huggingface")
    data = shlex.quote(f"data.train=[{{path: {json.dumps(str(out / 'train.jsonl'))}}}]")
    lines += [
        f"train on it: mu-llama train --config {shlex.quote(str(out / 'train.yaml'))} --set {data}",
        f"pass it on:  mu-llama musicqa export {shlex.quote(str(out))} --to huggingface --out "
        + shlex.quote(str(beside)),
    ]
    return lines
