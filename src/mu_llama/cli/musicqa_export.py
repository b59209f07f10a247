"""`mu-llama musicqa export` and `import`: other people's formats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import ConfigError, MuLlamaError

if TYPE_CHECKING:
    from mu_llama.musicqa.items import Item

_FORMATS = ("published", "huggingface", "jsonl", "csv")


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of `musicqa build` or `musicqa import`.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    to: Annotated[str, typer.Option(help=f"{', '.join(_FORMATS)}.")] = "huggingface",
    as_json: Annotated[bool, typer.Option("--json", help="Print counts as one JSON object.")] = False,
) -> None:
    """Write a finished data set in another format, with a card of sources, licences and plots.

    published: audios/000000.wav ... and {Pretrain,Finetune,Eval}MusicQA.json. huggingface: Parquet with audio, for
    `datasets.load_dataset`. jsonl: one question a line. csv: the reference's intermediate table.
    """
    try:
        from mu_llama.musicqa.build_folder import BuildFolder, finished_items
        from mu_llama.musicqa.export.card import write_card

        if to not in _FORMATS:
            raise ConfigError(f"--to is {to!r}; expected one of: {', '.join(_FORMATS)}")
        finished_items(folder)  # complains before anything is written
        counts = _write(to, lambda: finished_items(folder), out)
        run = BuildFolder(folder).run() if (folder / "run.json").is_file() else {}
        write_card(out, finished_items(folder), run, parquet=to == "huggingface")
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
        from mu_llama.musicqa.build_folder import ITEMS_FILE
        from mu_llama.musicqa.items import SPLITS, read_items, training_rows, write_items
        from mu_llama.records import to_line, write_whole

        if split not in SPLITS:
            raise ConfigError(f"--split is {split!r}; expected one of: {', '.join(SPLITS)}")
        if audio is not None and not audio.is_dir():
            raise ConfigError(f"--audio {audio}: there is no such folder; expected that of the wavs")
        if (out / ITEMS_FILE).exists():
            raise ConfigError(f"{out}: holds a data set already; choose another --out")
        write_items(out / ITEMS_FILE, _read(file, audio, split))
        tracks = [item.track for item in read_items(out / ITEMS_FILE)]
        num_missing = sum(track.audio is not None and not track.audio.is_file() for track in tracks)
        rows = (to_line(row) for item in read_items(out / ITEMS_FILE) for row in training_rows(item))
        write_whole(out / f"{split}.jsonl", rows)
    except (MuLlamaError, OSError) as error:
        raise opt.fail(error) from None
    counts = {"tracks": len(tracks), "missing_audio": num_missing}
    print(json.dumps(counts) if as_json else f"{out}: {len(tracks)} tracks, {num_missing} without their audio file")


def _write(to: str, items: Any, out: Path) -> dict[str, int]:
    if to == "published":
        from mu_llama.musicqa.export.published import export_published

        return export_published(items, out)
    if to == "huggingface":
        from mu_llama.musicqa.export.hugging_face import export_hugging_face

        return export_hugging_face(items, out)
    if to == "csv":
        from mu_llama.musicqa.export.intermediate_csv import write_csv
        from mu_llama.musicqa.export.published import audio_name

        most = max((len(item.reply.pairs) for item in items()), default=0)
        named = ((audio_name(item, number), item) for number, item in enumerate(items()))
        write_csv(out / "musicqa.csv", named, num_pairs=most)
        return {"tracks": sum(1 for _ in items())}
    return _write_jsonl(items, out)


def _write_jsonl(items: Any, out: Path) -> dict[str, int]:
    from mu_llama.musicqa.items import SPLITS, training_rows
    from mu_llama.records import to_line, write_whole

    counts: dict[str, int] = {}
    for split in SPLITS:

        def rows(split: str = split) -> Iterator[str]:
            for item in items():
                if item.split == split:
                    for row in training_rows(item):
                        counts[split] = counts.get(split, 0) + 1
                        yield to_line(row)

        write_whole(out / f"{split}.jsonl", rows())
    return counts


def _read(file: Path, audio: Path | None, split: str) -> Iterable[Item]:
    import dataclasses

    from mu_llama.musicqa.export.intermediate_csv import read_csv
    from mu_llama.musicqa.export.published import items_of, read_published

    if file.suffix.lower() == ".csv":
        items: Iterable[Item] = (item for _, item in read_csv(file, audio_folder=audio))
    else:
        items = items_of(read_published(file), audio_folder=audio)
    return (dataclasses.replace(item, split=split) for item in items)  # type: ignore[arg-type]
