"""`mu-llama musicqa`: question-answer pairs and captions from tags and captions. Its `build` is in `musicqa_build`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mu_llama.cli import options as opt
from mu_llama.cli.progress import plain_console
from mu_llama.errors import MuLlamaError
from mu_llama.musicqa.export import EXPORT_FORMATS
from mu_llama.musicqa.sources import SOURCES

if TYPE_CHECKING:
    from mu_llama.labels.track import Track
    from mu_llama.musicqa.items import DataSetItem, Split
    from mu_llama.musicqa.sources.corpus_files import BadTrack
    from mu_llama.musicqa.statistics import TrackCounts

_BAR_WIDTH, _MAX_TAGS = 32, 12


def scan_command(
    source: Annotated[str, typer.Argument(help=f"{', '.join(SOURCES)}.")],
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

        rows: Iterable[Track | BadTrack] = source_by_name(source)(root)
        lines: list[str] = []
        counts = count_tracks(rows if left_out is None else _with_left_out_lines(rows, lines))
        if left_out is not None:
            write_whole(left_out, lines)
        if as_json:
            print(json.dumps(counts.to_dict()))
        else:
            _show(counts, left_out)
        if plot is not None and not no_plot and counts.num_tracks:
            from mu_llama.musicqa.statistics import plot_bars

            plot_bars(plot, {category: tags.most_common(16) for category, tags in counts.tags.items()}, unit="tracks")
            if not as_json:
                print(f"tags as a picture: {plot}")
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    if not counts.num_tracks:
        raise opt.fail(f"{root}: no usable track was found")


def _with_left_out_lines(rows: Iterable[Track | BadTrack], lines: list[str]) -> Iterator[Track | BadTrack]:
    """Pass rows on, and append a JSON line for each that is left out or has labels left out."""
    from mu_llama.files import to_line
    from mu_llama.musicqa.sources.corpus_files import BadTrack

    for row in rows:
        if isinstance(row, BadTrack):
            lines.append(to_line({"where": row.where, "reason": row.reason}))
        elif row.dropped:
            lines.append(to_line({"id": row.id, "dropped": list(row.dropped)}))
        yield row


def _show(counts: TrackCounts, left_out: Path | None) -> None:
    from rich.text import Text

    from mu_llama.musicqa.report import left_out_lines, printable

    console = plain_console(stderr=False)
    length = f"{counts.seconds / 3600:.1f} hours" if counts.num_timed else "unknown length"
    if 0 < counts.num_timed < counts.num_tracks:
        length += f" (of {counts.num_timed} tracks)"
    where = "--left-out FILE writes all" if left_out is None else f"all in {left_out}"
    lines = [
        f"{counts.num_tracks} tracks, {length}, {len(counts.groups)} artists, {counts.num_captioned} with captions",
        f"{counts.num_without_audio} without their audio file, {counts.num_bad} bad rows",
        *left_out_lines(counts.to_dict(), tracks="bad", values="dropped_labels", where=where),
        *(f"licence: {printable(licence)} ({number})" for licence, number in counts.licences.most_common(5)),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
    for category, tags in counts.tags.items():
        if not tags:
            continue
        rest = f" ({sum(tags.values())} labels, {len(tags)} different)"
        console.print(Text.assemble("\n", (category, "bold"), rest), soft_wrap=True)
        shown = tags.most_common(_MAX_TAGS)
        for name, number in shown:
            bar = "█" * max(1, round(_BAR_WIDTH * number / shown[0][1]))
            console.print(f"  {printable(name)[:28]:28} {bar} {number}", soft_wrap=True)


def export_command(
    folder: Annotated[Path, typer.Argument(help="Folder of `musicqa build` or `musicqa import`.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[str, typer.Option(help=f"{', '.join(EXPORT_FORMATS)}.")] = "huggingface",
    root: Annotated[
        Path | None,
        typer.Option(help="Where the corpus is now: its folder or label file.", show_default="where it was"),
    ] = None,
    allow_missing_audio: Annotated[
        bool,
        typer.Option("--allow-missing-audio", help="Leave out tracks whose audio is missing or can't be decoded."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts as one JSON object.")] = False,
) -> None:
    """Write a finished data set in another format, with a card of sources, licences and plots.

    published: audios/000000.wav ... and {Pretrain,Finetune,Eval}MusicQA.json. huggingface: Parquet with audio, for
    `datasets.load_dataset`. jsonl: one question a line. csv: the reference's intermediate table. An earlier export in
    the folder, of whatever format, is replaced when the new one is whole.
    """
    try:
        from mu_llama.musicqa.export.data_set import export_data_set

        counts = export_data_set(folder, out, to=to, root=root, allow_missing_audio=allow_missing_audio)
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    if as_json:
        print(json.dumps(counts))
        return
    left_out = sum(counts.pop(name, 0) for name in ("missing_audio", "unheard"))
    print(f"{out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    if left_out:
        print(f"{left_out} {'track' if left_out == 1 else 'tracks'} without audio left out")


def import_command(
    file: Annotated[Path, typer.Argument(help="A published MusicQA JSON, or an intermediate CSV.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    audio: Annotated[Path | None, typer.Option(help="Folder of its wavs.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    as_json: Annotated[bool, typer.Option("--json", help="Print counts as one JSON object.")] = False,
) -> None:
    """Read published questions, so that they can be trained on, exported and counted."""
    try:
        from mu_llama.musicqa.export.data_set import import_items

        items = _published_items(file, audio, split)
        tracks = import_items(items, out, split=split, audio=audio)
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    num_missing = sum(track.audio is not None and not track.audio.is_file() for track in tracks)
    counts = {"tracks": len(tracks), "missing_audio": num_missing}
    print(json.dumps(counts) if as_json else f"{out}: {len(tracks)} tracks, {num_missing} without their audio file")


def _published_items(file: Path, audio: Path | None, split: str) -> Iterator[DataSetItem]:
    from mu_llama.musicqa.export.published import items_of_rows, read_csv, read_published_rows

    if file.suffix.lower() == ".csv":
        items: Iterable[DataSetItem] = (item for _, item in read_csv(file, audio_folder=audio))
    else:
        items = items_of_rows(read_published_rows(file), audio_folder=audio)
    return (dataclasses.replace(item, split=cast("Split", split)) for item in items)  # import_items checks the split
