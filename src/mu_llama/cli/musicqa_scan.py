"""`mu-llama musicqa scan`: what a corpus holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import MuLlamaError

if TYPE_CHECKING:
    from mu_llama.labels.track import Track
    from mu_llama.musicqa.sources.corpus_files import BadTrack
    from mu_llama.musicqa.statistics import TrackCounts

_BAR_WIDTH, _MOST_TAGS = 32, 12


def scan(
    source: Annotated[str, typer.Argument(help="musiccaps, magnatagatune, mtg-jamendo or folder.")],
    root: Annotated[Path, typer.Argument(help="Its label file, or the folder around labels and audio.")],
    plot: Annotated[Path | None, typer.Option(help="PNG of the tags to write.", show_default=False)] = None,
    left_out: Annotated[
        Path | None,
        typer.Option(help="JSON lines to write: every bad row and every label left out.", show_default=False),
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Write no PNG, as without --plot.", hidden=True)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Count tracks, hours, missing audio, tags, and what can't be used; writes no file unless asked to.

    Audio is only looked for; `folder` opens each file for its own tags.
    """
    try:
        from mu_llama.files import write_whole
        from mu_llama.musicqa.sources import source_by_name
        from mu_llama.musicqa.statistics import count_tracks

        found: Iterable[Track | BadTrack] = source_by_name(source)(root)
        lines: list[str] = []
        counts = count_tracks(found if left_out is None else _noted(found, lines))
        if left_out is not None:
            write_whole(left_out, lines)
        if as_json:
            print(json.dumps(counts.to_dict()))
        else:
            _show(counts, left_out)
        if plot is not None and not no_plot and counts.num_tracks:
            from mu_llama.musicqa.statistics import plot_bars

            plot_bars(plot, {name: own.most_common(16) for name, own in counts.tags.items()}, unit="tracks")
            if not as_json:
                print(f"tags as a picture: {plot}")
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    if not counts.num_tracks:
        raise opt.fail(f"{root}: no usable track was found")


def _noted(found: Iterable[Track | BadTrack], lines: list[str]) -> Iterator[Track | BadTrack]:
    """Pass rows on, and note what is left out of them."""
    from mu_llama.files import to_line
    from mu_llama.musicqa.sources.corpus_files import BadTrack

    for row in found:
        if isinstance(row, BadTrack):
            lines.append(to_line({"where": row.where, "reason": row.reason}))
        elif row.dropped:
            lines.append(to_line({"id": row.id, "dropped": list(row.dropped)}))
        yield row


def _show(counts: TrackCounts, left_out: Path | None) -> None:
    from rich.console import Console

    from mu_llama.musicqa.report import left_out_lines

    console = Console(highlight=False, soft_wrap=True)
    length = f"{counts.seconds / 3600:.1f} hours" if counts.num_timed else "unknown length"
    if 0 < counts.num_timed < counts.num_tracks:
        length += f" (of {counts.num_timed} tracks)"
    console.print(
        f"{counts.num_tracks} tracks, {length}, {len(counts.groups)} artists, {counts.num_captioned} with captions"
    )
    console.print(f"{counts.num_without_audio} without their audio file, {counts.num_bad} bad rows")
    where = "--left-out FILE writes all" if left_out is None else f"all in {left_out}"
    for line in left_out_lines(counts.to_dict(), tracks="bad", values="dropped_labels", where=where):
        console.print(line, markup=False)
    for licence, number in counts.licences.most_common(5):
        console.print(f"licence: {licence} ({number})", markup=False)
    for category, own in counts.tags.items():
        if not own:
            continue
        console.print(f"\n[bold]{category}[/bold] ({sum(own.values())} labels, {len(own)} different)")
        most = own.most_common(_MOST_TAGS)
        for name, number in most:
            bar = "█" * max(1, round(_BAR_WIDTH * number / most[0][1]))
            console.print(f"  {name[:28]:28} {bar} {number}", markup=False)
