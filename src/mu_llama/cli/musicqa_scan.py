"""`mu-llama musicqa scan`: what a corpus holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import MuLlamaError

if TYPE_CHECKING:
    from mu_llama.musicqa.statistics import TrackCounts

_BAR_WIDTH, _MOST_TAGS, _MOST_BAD = 32, 12, 10


def scan(
    source: Annotated[str, typer.Argument(help="musiccaps, magnatagatune, mtg-jamendo or folder.")],
    root: Annotated[Path, typer.Argument(help="Its label file, or the folder around labels and audio.")],
    plot: Annotated[
        Path | None, typer.Option(help="PNG of the tags to write.", show_default="<source>-tags.png")
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Write no PNG.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Count tracks, hours, missing audio and tags.

    Audio is only looked for; `folder` opens each file for its own tags.
    """
    try:
        from mu_llama.musicqa.sources import source_by_name
        from mu_llama.musicqa.statistics import count_tracks

        counts = count_tracks(source_by_name(source)(root))
        if as_json:
            print(json.dumps(counts.to_dict()))
        else:
            _show(counts)
        if not no_plot and counts.num_tracks:
            from mu_llama.musicqa.plots import plot_bars

            path = plot or Path(f"{source}-tags.png")
            plot_bars(path, {name: own.most_common(16) for name, own in counts.tags.items()}, unit="tracks")
            if not as_json:
                print(f"tags as a picture: {path}")
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    if not counts.num_tracks:
        raise opt.fail(f"{root}: no usable track was found")


def _show(counts: TrackCounts) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    length = f"{counts.seconds / 3600:.1f} hours" if counts.num_timed else "unknown length"
    if 0 < counts.num_timed < counts.num_tracks:
        length += f" (of {counts.num_timed} tracks)"
    console.print(
        f"{counts.num_tracks} tracks, {length}, {len(counts.groups)} artists, {counts.num_captioned} with captions"
    )
    console.print(f"{counts.num_without_audio} without their audio file, {counts.num_bad} bad rows")
    for bad in counts.bad[:_MOST_BAD]:
        console.print(f"  {bad}", markup=False)
    if counts.num_bad > _MOST_BAD:
        console.print(f"  and {counts.num_bad - _MOST_BAD} more")
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
