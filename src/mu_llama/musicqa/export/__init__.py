"""Finished data sets in the formats of others: one file each, and one line in EXPORT_FORMATS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mu_llama.musicqa.export.staging import ExportFormat


EXPORT_FORMATS: dict[str, Callable[[], ExportFormat]] = {
    "published": partial(resolve_name, f"{__name__}.published:PUBLISHED_FORMAT"),
    "huggingface": partial(resolve_name, f"{__name__}.hugging_face:HUGGING_FACE_FORMAT"),
    "jsonl": partial(resolve_name, f"{__name__}.data_set:JSON_LINES_FORMAT"),
    "csv": partial(resolve_name, f"{__name__}.published:CSV_FORMAT"),
}
"""Name of a format, as `--to` takes it -> a function that imports and gives it."""
