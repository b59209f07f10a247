"""A data set to and from other formats: an export is whole or not there at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from mu_llama.errors import ConfigError
from mu_llama.files import to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.audio_paths import AudioPaths, write_places
from mu_llama.musicqa.build_folder import ITEMS_FILE, RUN_FILE, BuildFolder
from mu_llama.musicqa.export.card import write_card
from mu_llama.musicqa.export.hugging_face import write_parquet_files
from mu_llama.musicqa.export.published import RESUMABLE, audio_name, write_csv, write_published_folder
from mu_llama.musicqa.export.staging import missing_audio, missing_audio_error, staged
from mu_llama.musicqa.items import SPLITS, Item, read_items, training_rows, write_items

ExportFormat = Literal["published", "huggingface", "jsonl", "csv"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

Items = Callable[[], Iterable[Item]]


def export_data_set(
    folder: Path,
    out: Path,
    *,
    to: ExportFormat = "huggingface",
    root: Path | None = None,
    allow_missing_audio: bool = False,
) -> dict[str, int]:
    """Write a finished data set in another format, with a card of sources, licences and plots.

    Args:
        folder: of a build or an import.
        out: folder of the export; an export that is there is replaced when the new one is whole.
        to: the format.
        root: where the corpus is now, if it isn't where it was.
        allow_missing_audio: go on where audio files aren't there, or can't be decoded.

    Returns:
        What was written, by name; and tracks whose audio is missing, where some may be.

    Raises:
        ConfigError: if `folder` holds no finished data set, or `out` holds something else or is `folder`.
        ExportError: if audio is missing, or `out` can't be written.
    """
    if to not in FORMATS:
        raise ConfigError(f"--to is {to!r}; expected one of: {', '.join(FORMATS)}")
    finished_items(folder, root=root)  # complains before anything is written
    if out.resolve() == folder.resolve():
        raise ConfigError(f"{out}: is the build itself; give another folder as --out")

    def items() -> Iterator[Item]:
        return finished_items(folder, root=root)

    missing = [] if to == "csv" else missing_audio(items())  # the table names wavs by number, and has none
    if missing and not allow_missing_audio:
        raise missing_audio_error(missing)
    with staged(out, to=to, resumable=RESUMABLE if to == "published" else ()) as scratch:
        counts = _write(to, items, scratch, out, allow_missing_audio)
        run: dict[str, Any] = BuildFolder(folder).run() if (folder / RUN_FILE).is_file() else {}
        write_card(scratch, items(), run, parquet=to == "huggingface")
    if missing and to != "published":  # which counts them itself
        counts["missing_audio"] = len(missing)
    return counts


def _write(to: ExportFormat, items: Items, scratch: Path, out: Path, allow_missing_audio: bool) -> dict[str, int]:
    if to == "published":
        return write_published_folder(items, scratch, earlier=out, allow_missing_audio=allow_missing_audio)
    if to == "huggingface":
        return write_parquet_files(items, scratch)
    if to == "jsonl":
        return _write_jsonl(items, scratch, out)
    most = max((len(item.reply.pairs) for item in items()), default=0)
    named = ((audio_name(item, number), item) for number, item in enumerate(items()))
    write_csv(scratch / "musicqa.csv", named, num_pairs=most)
    return {"tracks": sum(1 for _ in items())}


def _write_jsonl(items: Items, scratch: Path, out: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for split in SPLITS:

        def rows(split: str = split) -> Iterator[str]:
            for item in items():
                if item.split == split:
                    for row in training_rows(item, folder=out):
                        counts[split] = counts.get(split, 0) + 1
                        yield to_line(row)

        write_whole(scratch / f"{split}.jsonl", rows())
    return counts


def import_items(items: Iterable[Item], out: Path, *, split: str, audio: Path | None) -> list[Track]:
    """Write items.jsonl and the rows for training.

    Args:
        items: all of one split.
        out: folder to write.
        split: its name.
        audio: folder of the wavs; None where there are none.

    Returns:
        The tracks.

    Raises:
        ConfigError: if `out` holds a data set, the split is none, or `audio` isn't there.
        SourceError: if `items` can't be read; nothing is written then.
        OSError: if the disk is full or the folder can't be written.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split is {split!r}; expected one of: {', '.join(SPLITS)}")
    if audio is not None and not audio.is_dir():
        raise ConfigError(f"--audio {audio}: there is no such folder; expected that of the wavs")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; give a folder as --out")
    taken = next((name for name in (ITEMS_FILE, f"{split}.jsonl") if (out / name).exists()), None)
    if taken is not None:
        raise ConfigError(f"{out}: holds {taken} already; choose another --out")
    read = list(items)
    if audio is not None:
        write_places(out, audio)
    write_whole(out / f"{split}.jsonl", (to_line(row) for item in read for row in training_rows(item, folder=out)))
    write_items(out / ITEMS_FILE, read)  # last: with them it is a data set
    return [item.track for item in read]


def finished_items(path: Path, *, root: Path | None = None) -> Iterator[Item]:
    """Stream the items of a finished build or an import.

    Args:
        path: folder of the build or import.
        root: where its corpus is now, if it isn't where it was.

    Raises:
        ConfigError: if the folder holds none, or a build that isn't finished; or if `root` isn't there.
    """
    if not (path / ITEMS_FILE).is_file():
        raise ConfigError(f"{path}: holds no {ITEMS_FILE}; expected a finished `mu-llama musicqa build` or `import`")
    if (path / RUN_FILE).is_file() and "report" not in BuildFolder(path).run():
        raise ConfigError(f"{path}: holds a build that isn't finished; start the same `musicqa build` again first")
    AudioPaths.of(path, root=root)  # complains before anything is streamed
    return read_items(path / ITEMS_FILE, root=root)
