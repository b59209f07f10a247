"""Rows of a Parquet file; pyarrow's only door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mu_llama.training.example import DataError

_ROWS_AT_A_TIME = 1024


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Parquet file as mappings from column to value.

    Args:
        path: the file; some thousand rows of it are in memory.

    Raises:
        DataError: if pyarrow isn't installed, or the file can't be read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow; run: pip install pyarrow") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: can't be read as Parquet ({' '.join(str(error).split())}); copy it again") from error
