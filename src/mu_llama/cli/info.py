"""`mu-llama info`: versions, device, models, licences that apply."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Annotated, Any

import typer

from mu_llama import __version__
from mu_llama.cli.progress import plain_console

PACKAGES = (
    "onnxruntime",
    "onnx",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "av",
    "soxr",
    "soundfile",
    "peft",
    "accelerate",
)


def info(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show versions, devices, models and the licences that apply to them."""
    facts = _facts()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    console = plain_console(stderr=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name in (
        "mu-llama",
        "python",
        "platform",
        "devices",
        "engine",
        "cache folder",
        "cached features",
        "cached graphs",
    ):
        table.add_row(Text(name, "bold"), str(facts[name]))
    for name, version in facts["packages"].items():
        table.add_row(name, version or Text("not installed", "dim"))
    console.print(table)
    for model in facts["models"]:
        console.print(Text.assemble("\n", (model["name"], "bold"), f": {model['state']}"))
        for part, licence in model["licences"].items():
            console.print(f"  {part}: {licence}")


def _facts() -> dict[str, Any]:
    from mu_llama.cache_folder import home_folder
    from mu_llama.checkpoints.embedded import PACKAGED, converted_folder
    from mu_llama.checkpoints.formats.native import read_model_config
    from mu_llama.checkpoints.load import EMBEDDED, embedded_folder
    from mu_llama.devices import available_devices
    from mu_llama.encoders.cache import FeatureCache
    from mu_llama.engine.onnx.load import GRAPHS_FOLDER
    from mu_llama.engine.onnx.store import graphs_size_bytes

    home = home_folder()
    models = []
    for name in EMBEDDED:
        config = read_model_config(embedded_folder(name))
        is_ready = (converted_folder(PACKAGED[config.llama["packaged"]], home) / "config.json").is_file()
        state = "ready" if is_ready else "its language model is fetched on first use"
        models.append({"name": name, "state": state, "licences": config.licences})
    return {
        "mu-llama": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": ", ".join(available_devices()),
        "engine": _engine(),
        "cache folder": str(home),
        "cached features": f"{FeatureCache(home / 'features').size_bytes() / 1e6:.1f} MB",
        "cached graphs": f"{graphs_size_bytes(home / GRAPHS_FOLDER) / 1e6:.1f} MB",
        "packages": {name: _version(name) for name in PACKAGES},
        "models": models,
    }


def _engine() -> str:
    """What runs small and quantized models here, and how fast its kernels can be."""
    from mu_llama.devices import compute_threads, processor_extensions

    extensions, threads = processor_extensions(), compute_threads()
    wide = {"AVX2", "NEON", "AVX-512"} & set(extensions)
    if platform.system() == "Linux" and not wide:
        kernels = "a processor without AVX2 or NEON: onnxruntime falls back to slower kernels"
    else:
        kernels = ", ".join(extensions) or "instructions unknown"
    return f"onnx on {threads} thread{'s' if threads > 1 else ''} ({kernels})"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
