"""`mu-llama musicqa export` and `import`: other people's formats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import MuLlamaError

if TYPE_CHECKING:
    from mu_llama.musicqa.items import Item

_FORMATS = ("published", "huggingface", "jsonl", "csv")


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of `musicqa build` or `musicqa import`.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[str, typer.Option(help=f"{', '.join(_FORMATS)}.")] = "huggingface",
    root: Annotated[
        Path | None,
        typer.Option(help="Where the corpus is now: its folder or label file.", show_default="where it was"),
    ] = None,
    allow_missing_audio: Annotated[
        bool, typer.Option("--allow-missing-audio", help="Go on without audio that isn't there or can't be decoded.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts as one JSON object.")] = False,
) -> None:
    """Write a finished data set in another format, with a card of sources, licences and plots.

    published: audios/000000.wav ... and {Pretrain,Finetune,Eval}MusicQA.json. huggingface: Parquet with audio, for
    `datasets.load_dataset`. jsonl: one question a line. csv: the reference's intermediate table. An earlier export in
    the folder is replaced when the new one is whole.
    """
    try:
        from mu_llama.musicqa.export.data_set import export_data_set

        counts = export_data_set(
            folder,
            out,
            to=to,  # type: ignore[arg-type]  # it checks
            root=root,
            allow_missing_audio=allow_missing_audio,
        )
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    print(
        json.dumps(counts) if as_json else f"{out}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    )


def import_(
    file: Annotated[Path, typer.Argument(help="A published MusicQA JSON, or an intermediate CSV.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    audio: Annotated[Path | None, typer.Option(help="Folder of its wavs.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    as_json: Annotated[bool, typer.Option("--json", help="Print counts as one JSON object.")] = False,
) -> None:
    """Read published questions, so that they can be trained on, exported and counted."""
    try:
        from mu_llama.musicqa.export.data_set import import_items

        items = _read(file, audio, split)
        tracks = import_items(items, out, split=split, audio=audio)
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    num_missing = sum(track.audio is not None and not track.audio.is_file() for track in tracks)
    counts = {"tracks": len(tracks), "missing_audio": num_missing}
    print(json.dumps(counts) if as_json else f"{out}: {len(tracks)} tracks, {num_missing} without their audio file")


def _read(file: Path, audio: Path | None, split: str) -> Iterable[Item]:
    import dataclasses

    from mu_llama.musicqa.export.published import items_of, read_csv, read_published

    if file.suffix.lower() == ".csv":
        items: Iterable[Item] = (item for _, item in read_csv(file, audio_folder=audio))
    else:
        items = items_of(read_published(file), audio_folder=audio)
    return (dataclasses.replace(item, split=split) for item in items)  # type: ignore[arg-type]
