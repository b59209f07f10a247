"""Finished data sets in the formats of others: one file each, and one line in EXPORT_FORMATS."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mu_llama.musicqa.export.staging import ExportFormat


def _imported(module: str, name: str) -> Callable[[], ExportFormat]:
    """Import a format of this package on its first use."""

    def read() -> ExportFormat:
        export_format: ExportFormat = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return export_format

    return read


EXPORT_FORMATS: dict[str, Callable[[], ExportFormat]] = {
    "published": _imported("published", "PUBLISHED_FORMAT"),
    "huggingface": _imported("hugging_face", "HUGGING_FACE_FORMAT"),
    "jsonl": _imported("data_set", "JSON_LINES_FORMAT"),
    "csv": _imported("published", "CSV_FORMAT"),
}
"""Name of a format, as `--to` takes it -> a function that imports and gives it."""
