"""A data set to and from other formats: an export is whole or not there at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mu_llama.errors import ConfigError
from mu_llama.files import to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.audio_paths import AudioPaths, write_places
from mu_llama.musicqa.build_folder import ITEMS_FILE, RUN_FILE, BuildFolder
from mu_llama.musicqa.export import EXPORT_FORMATS
from mu_llama.musicqa.export.card import write_data_card
from mu_llama.musicqa.export.staging import ExportFormat, Items, lacks_audio, missing_audio, missing_audio_error, staged
from mu_llama.musicqa.items import SPLITS, DataSetItem, read_items, training_rows, write_items


def export_data_set(
    folder: Path,
    out: Path,
    *,
    to: str = "huggingface",
    root: Path | None = None,
    allow_missing_audio: bool = False,
) -> dict[str, int]:
    """Write a finished data set in another format, with a card of sources, licences and plots.

    Args:
        folder: of a build or an import.
        out: folder of the export; an export that is there is replaced when the new one is whole.
        to: the format, a key of EXPORT_FORMATS.
        root: where the corpus is now, if it isn't where it was.
        allow_missing_audio: leave out and count tracks whose audio isn't there, or can't be decoded.

    Returns:
        What was written, by name; and tracks whose audio is missing, where some may be.

    Raises:
        ConfigError: if `folder` holds no finished data set, or `out` holds something else or is `folder`.
        ExportError: if audio is missing, or `out` can't be written; an export that was there stays.
    """
    if to not in EXPORT_FORMATS:
        raise ConfigError(f"--to is {to!r}; expected one of: {', '.join(EXPORT_FORMATS)}")
    finished_items(folder, root=root)  # raises before anything is written
    if out.resolve() == folder.resolve():
        raise ConfigError(f"{out}: is the build itself; give another folder as --out")
    if next(iter(finished_items(folder, root=root)), None) is None:
        raise ConfigError(f"{folder}: holds no item, since no track was written about; build one with usable tracks")
    run: dict[str, Any] = BuildFolder(folder).run() if (folder / RUN_FILE).is_file() else {}
    return export_items(
        lambda: finished_items(folder, root=root),
        out,
        to=to,
        run=run,
        root=root,
        allow_missing_audio=allow_missing_audio,
    )


def export_items(
    items: Items,
    out: Path,
    *,
    to: str,
    run: Mapping[str, Any],
    allow_missing_audio: bool = False,
    root: Path | None = None,
) -> dict[str, int]:
    """Write items in a format; see `export_data_set`.

    Args:
        items: opens their stream, in order.
        out: folder of the export.
        to: the format.
        run: what run.json of their build holds, for the card; empty for imported data.
        allow_missing_audio: leave out and count tracks whose audio isn't there, or can't be decoded.
        root: where their corpus was looked for, if the caller said so.
    """
    export_format = EXPORT_FORMATS[to]()
    missing = missing_audio(items()) if export_format.has_audio else []
    if missing and not allow_missing_audio:
        where = "say with --root where the corpus is now"
        advice = where if root is None else f"--root {root} doesn't hold them: name the folder that does"
        raise missing_audio_error(missing, advice=advice)

    def with_audio() -> Iterator[DataSetItem]:
        return (item for item in items() if not (missing and lacks_audio(item)))

    with staged(out, to=to) as scratch:
        written = items if export_format.counts_missing_audio else with_audio
        counts = export_format.write(written, scratch, out=out, allow_missing_audio=allow_missing_audio)
        write_data_card(scratch, with_audio(), run, split_files=export_format.split_files)
    if missing and not export_format.counts_missing_audio:
        counts["missing_audio"] = len(missing)
    return counts


def _write_json_lines(items: Items, folder: Path, *, out: Path, allow_missing_audio: bool) -> dict[str, int]:
    """Write the rows that `mu-llama train` reads, a file for each split; see `WriteExport`."""
    counts: dict[str, int] = {}
    for split in SPLITS:

        def rows(split: str = split) -> Iterator[str]:
            for item in items():
                if item.split == split:
                    for row in training_rows(item, folder=out):
                        counts[split] = counts.get(split, 0) + 1
                        yield to_line(row)

        write_whole(folder / f"{split}.jsonl", rows())
    return counts


JSON_LINES_FORMAT = ExportFormat(_write_json_lines, files=tuple(f"{split}.jsonl" for split in SPLITS))


def import_items(items: Iterable[DataSetItem], out: Path, *, split: str, audio: Path | None) -> list[Track]:
    """Write items of other people's files as a data set that is trained on, exported and counted like a build.

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
    all_items = list(items)
    if audio is not None:
        write_places(out, audio)
    write_whole(out / f"{split}.jsonl", (to_line(row) for item in all_items for row in training_rows(item, folder=out)))
    write_items(out / ITEMS_FILE, all_items)  # last: with them it is a data set
    return [item.track for item in all_items]


def finished_items(path: Path, *, root: Path | None = None) -> Iterator[DataSetItem]:
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
    AudioPaths.of(path, root=root)  # raises before anything is streamed
    return read_items(path / ITEMS_FILE, root=root)
