"""Reads the JSON files that lie beside weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mu_llama.errors import CheckpointError
from mu_llama.hub import refuse_lfs_pointer


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: if the file is missing or isn't one.
    """
    refuse_lfs_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: can't be read as JSON ({error}); get it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a JSON object")
    return content
