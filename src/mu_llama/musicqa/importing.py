"""Items of other people's files as a data set: trained on, exported and counted like a build."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mu_llama.errors import ConfigError
from mu_llama.files import to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.audio_paths import write_places
from mu_llama.musicqa.build_folder import ITEMS_FILE
from mu_llama.musicqa.items import SPLITS, Item, training_rows, write_items


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
