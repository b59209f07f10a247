"""A folder that `datasets.load_dataset` opens: Parquet with the audio inside, one row a track."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from mu_llama.errors import ConfigError
from mu_llama.files import without_surrogates
from mu_llama.musicqa.export.staging import ExportFormat, Items
from mu_llama.musicqa.items import SPLITS, DataSetItem

_SHARD_BYTES = 400 * 2**20
_ROW_GROUP_TRACKS = 32
_FEATURES = {
    "id": {"dtype": "string", "_type": "Value"},
    "audio": {"_type": "Audio"},
    "caption": {"dtype": "string", "_type": "Value"},
    "questions": {
        "feature": {name: {"dtype": "string", "_type": "Value"} for name in ("kind", "question", "answer")},
        "_type": "List",
    },
    "tags": {
        "feature": {name: {"dtype": "string", "_type": "Value"} for name in ("category", "tag")},
        "_type": "List",
    },
    **{name: {"dtype": "string", "_type": "Value"} for name in ("title", "artist", "licence", "source")},
}


def write_parquet_files(items: Items, folder: Path, *, out: Path, allow_missing_audio: bool) -> dict[str, int]:
    """Write data/<split>-NNNNN.parquet; audio files go in as they are.

    Tracks that never had audio have null there. See `WriteExport`.

    Returns:
        Tracks of each split.

    Raises:
        ConfigError: if pyarrow isn't installed.
        OSError: if the disk is full or the folder can't be written.
    """
    counts: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        with _Shards(folder / "data", split) as shards:
            for item in items():
                if item.split == split:
                    shards.add(_row(item))
                    counts[split] += 1
    return counts


def _row(item: DataSetItem) -> dict[str, Any]:
    """Give the columns of an item; Parquet holds UTF-8 alone."""
    track, text = item.track, without_surrogates
    audio = None
    if track.audio is not None and track.audio.is_file():
        audio = {"bytes": track.audio.read_bytes(), "path": text(track.audio.name)}
    return {
        "id": text(track.id),
        "audio": audio,
        "caption": text(item.reply.caption),
        "questions": [
            {"kind": kind, "question": text(question), "answer": text(answer)} for kind, question, answer in item.pairs
        ],
        "tags": [{"category": category, "tag": text(tag)} for category, tags in track.tags.items() for tag in tags],
        "title": None if track.title is None else text(track.title),
        "artist": None if track.artist is None else text(track.artist),
        "licence": None if track.licence is None else text(track.licence),
        "source": track.source,
    }


class _Shards:
    """Parquet files of one split, each begun when the one before is large; none appears before it is whole."""

    def __init__(self, folder: Path, split: str) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError("this export needs pyarrow; run: pip install 'mu-llama[musicqa]'") from error
        self._arrow, self._folder, self._split = pyarrow, folder, split
        self._rows: list[dict[str, Any]] = []
        self._number = self._size_bytes = 0
        self._file: Any = None
        self._scratch = Path()

    def __enter__(self) -> _Shards:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._size_bytes += len(row["audio"]["bytes"]) if row["audio"] else 0
        if len(self._rows) == _ROW_GROUP_TRACKS:
            self._flush()
            if self._size_bytes > _SHARD_BYTES:
                self._close()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
            self._close()
        elif self._file is not None:
            self._file.close()
            with suppress(OSError):
                self._scratch.unlink()

    def _flush(self) -> None:
        if not self._rows:
            return
        table = self._arrow.Table.from_pylist(self._rows, schema=self._schema())
        if self._file is None:
            self._scratch = self._folder / f".{secrets.token_hex(4)}.part"
            self._file = self._arrow.parquet.ParquetWriter(self._scratch, table.schema)
        self._file.write_table(table)
        self._rows = []

    def _close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        os.replace(self._scratch, self._folder / f"{self._split}-{self._number:05}.parquet")  # noqa: PTH105
        self._file, self._size_bytes, self._number = None, 0, self._number + 1

    def _schema(self) -> Any:
        arrow = self._arrow
        text = arrow.string()
        question = arrow.struct([("kind", text), ("question", text), ("answer", text)])
        fields = {
            "id": text,
            "audio": arrow.struct([("bytes", arrow.binary()), ("path", text)]),
            "caption": text,
            "questions": arrow.list_(question),
            "tags": arrow.list_(arrow.struct([("category", text), ("tag", text)])),
            **dict.fromkeys(("title", "artist", "licence", "source"), text),
        }
        metadata = {"huggingface": json.dumps({"info": {"features": _FEATURES}})}
        return arrow.schema(list(fields.items()), metadata=metadata)


def _earlier_parquets(out: Path) -> list[str]:
    return [path.relative_to(out).as_posix() for path in sorted((out / "data").glob("*-[0-9]*.parquet"))]


HUGGING_FACE_FORMAT = ExportFormat(
    write_parquet_files, more_files=_earlier_parquets, split_files="data/{split}-*.parquet"
)
