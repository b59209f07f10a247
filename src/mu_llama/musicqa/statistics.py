"""Counts over a corpus or a data set, and their plots; the only door to matplotlib here."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu_llama.cache_folder import choose_library_folder, has_writable_user_home
from mu_llama.errors import ConfigError
from mu_llama.labels.grounding import terms_said
from mu_llama.labels.track import Track
from mu_llama.labels.vocabulary import CATEGORIES
from mu_llama.musicqa.items import DataSetItem
from mu_llama.musicqa.report import LeftOut, printable
from mu_llama.musicqa.sources.corpus_files import BadTrack

_MAX_BAD = 1000


@dataclass
class TrackCounts:
    """Sums over the tracks of a corpus."""

    num_tracks: int = 0
    """Usable rows."""
    num_without_audio: int = 0
    """Of them, those whose audio file isn't there."""
    num_captioned: int = 0
    """Of them, those with a caption."""
    seconds: float = 0.0
    """Total length, where known."""
    num_timed: int = 0
    """Tracks whose length is known."""
    groups: set[int] = field(default_factory=set)
    """Hashes of artists."""
    tags: dict[str, Counter[str]] = field(default_factory=lambda: {category: Counter() for category in CATEGORIES})
    """Counts of labels by category, in the vocabulary's words where it has them."""
    absent: Counter[str] = field(default_factory=Counter)
    """Counts of terms that labels deny."""
    licences: Counter[str] = field(default_factory=Counter)
    """Tracks by licence."""
    sources: Counter[str] = field(default_factory=Counter)
    """Tracks by corpus."""
    bad: list[BadTrack] = field(default_factory=list)
    """Rows that can't be used, the first thousand."""
    num_bad: int = 0
    """All of them."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Reasons of the bad rows, and values left out of labels."""

    def add(self, row: Track | BadTrack) -> None:
        """Count one more row."""
        self.left_out.add(row)
        if isinstance(row, BadTrack):
            self.num_bad += 1
            if len(self.bad) < _MAX_BAD:
                self.bad.append(row)
            return
        self.num_tracks += 1
        self.num_without_audio += row.audio is None
        self.num_captioned += row.caption is not None
        duration = row.facts.get("duration_s")
        if isinstance(duration, int | float):
            self.seconds += duration
            self.num_timed += 1
        self.groups.add(hash(row.group))
        self.licences[row.licence or "unknown"] += 1
        self.sources[row.source] += 1
        for category, tags in row.tags.items():
            category_counts = self.tags.setdefault(category, Counter())
            for tag in tags:
                named, denied = terms_said(tag, is_genre=category == "genre")
                names = [term.name for term in named if term.category == category]
                category_counts.update(names or ([] if denied and category != "other" else [tag]))
        self._add_absent(row)

    def _add_absent(self, track: Track) -> None:
        said = {name for names in track.absent.values() for name in names}
        for category, tags in track.tags.items():
            for tag in tags:
                said.update(term.name for term in terms_said(tag, is_genre=category == "genre")[1])
        self.absent.update(said)

    def to_dict(self, *, max_tags: int = 50) -> dict[str, object]:
        """Give plain values for JSON."""
        return {
            "tracks": self.num_tracks,
            "hours": round(self.seconds / 3600, 2),
            "tracks_with_length": self.num_timed,
            "missing_audio": self.num_without_audio,
            "captioned": self.num_captioned,
            "artists": len(self.groups),
            "bad_rows": self.num_bad,
            **self.left_out.to_dict(tracks="bad", values="dropped_labels"),
            "licences": dict(self.licences.most_common()),
            "absent": dict(self.absent.most_common(max_tags)),
            "tags": {category: dict(counts.most_common(max_tags)) for category, counts in self.tags.items() if counts},
        }


def count_tracks(rows: Iterable[Track | BadTrack]) -> TrackCounts:
    """Count rows."""
    counts = TrackCounts()
    for row in rows:
        counts.add(row)
    return counts


@dataclass
class ItemCounts:
    """Sums over a data set."""

    tracks: TrackCounts = field(default_factory=TrackCounts)
    """Of its tracks."""
    splits: Counter[str] = field(default_factory=Counter)
    """Tracks by split."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Questions by kind."""
    first_words: Counter[str] = field(default_factory=Counter)
    """The first two words of open questions."""
    answer_words: dict[str, list[int]] = field(default_factory=dict)
    """Lengths of answers in words, by kind."""


def count_items(items: Iterable[DataSetItem]) -> ItemCounts:
    """Count items."""
    counts = ItemCounts()
    for item in items:
        counts.tracks.add(item.track)
        counts.splits[item.split] += 1
        for kind, question, answer in item.pairs:
            counts.kinds[kind] += 1
            counts.answer_words.setdefault(kind, []).append(len(answer.split()))
            if kind == "open":
                counts.first_words[" ".join(question.split()[:2])] += 1
    return counts


_PANEL_INCHES, _NAME_INCHES, _MAX_COLUMNS = 3.6, 1.5, 3


def plot_bars(path: Path, panels: Mapping[str, Sequence[tuple[str, int]]], *, unit: str) -> None:
    """Draw horizontal bars, a panel for each title.

    Args:
        path: PNG to write, in one step.
        panels: title to names with counts, the largest first.
        unit: of the counts.

    Raises:
        ConfigError: if matplotlib isn't installed.
    """
    shown = {title: list(bars)[::-1] for title, bars in panels.items() if bars}
    num_columns = max(1, min(_MAX_COLUMNS, len(shown)))
    num_rows = max(1, -(-len(shown) // num_columns))
    panel_height = 0.9 + 0.2 * max((len(bars) for bars in shown.values()), default=1)
    width, height = _PANEL_INCHES * num_columns, panel_height * num_rows
    figure = _figure(width=width, height=height)
    for number, (title, bars) in enumerate(shown.items()):
        # Laid out here: matplotlib's own layout engines draw everything several times.
        row, column = divmod(number, num_columns)
        left, bottom = column * _PANEL_INCHES + _NAME_INCHES, height - (row + 1) * panel_height + 0.5
        size = (_PANEL_INCHES - _NAME_INCHES - 0.25) / width, (panel_height - 0.85) / height
        axes = figure.add_axes((left / width, bottom / height, *size))
        axes.barh(range(len(bars)), [count for _, count in bars], color="#3b6ea5")
        axes.set_ylim(-0.6, max(len(bars), 6) - 0.4)
        # Names come from files of others: they are neither formulas nor always letters.
        names = [printable(name)[:26] for name, _ in bars]
        axes.set_yticks(range(len(bars)), names, parse_math=False)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(unit, fontsize=8)
        axes.tick_params(labelsize=7)
    _save(figure, path)


def plot_histograms(path: Path, values: Mapping[str, Sequence[int]], *, unit: str) -> None:
    """Draw distributions over one another, a line for each name.

    Raises:
        ConfigError: if matplotlib isn't installed.
    """
    figure = _figure(width=6, height=3.2)
    axes = figure.add_axes((0.12, 0.16, 0.85, 0.8))
    longest = max((max(lengths, default=1) for lengths in values.values()), default=1)
    bins = [round(longest * step / 40) for step in range(41)] if longest > 40 else list(range(longest + 2))
    for name, lengths in values.items():
        axes.hist(lengths, bins=sorted(set(bins)), histtype="step", linewidth=1.5, label=name)
    axes.set_xlabel(unit, fontsize=8)
    axes.set_ylabel("answers", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _figure(*, width: float, height: float) -> Any:
    try:
        if not has_writable_user_home():
            choose_library_folder("MPLCONFIGDIR", "matplotlib")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib; run: pip install 'mu-llama[musicqa]'") from error
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.png")
    try:
        figure.savefig(scratch)
        scratch.replace(path)
    finally:
        with suppress(OSError):  # gone, when all went well
            scratch.unlink()
