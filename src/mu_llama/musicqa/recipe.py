"""Settings for training on a finished build, so that its next step needs nothing else."""

from __future__ import annotations

import importlib.resources
import json
import string
from pathlib import Path

from mu_llama.files import write_whole

RECIPE_FILE = "train.yaml"


def write_recipe(folder: Path) -> None:
    """Write the settings of a laptop's training run into the folder of a build; one that is there stays.

    Training takes paths in settings from the working directory on, so they are absolute here.

    Raises:
        OSError: if the disk is full or the folder can't be written.
    """
    if (folder / RECIPE_FILE).exists():
        return
    text = importlib.resources.files("mu_llama.musicqa").joinpath("train.yaml").read_text(encoding="utf-8")
    real = folder.resolve()
    paths = {"train": real / "train.jsonl", "out": real.with_name(real.name + "-run")}
    quoted = {name: json.dumps(str(path)) for name, path in paths.items()}
    write_whole(folder / RECIPE_FILE, [string.Template(text).substitute(quoted)])
