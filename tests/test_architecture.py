"""The import rules of docs/architecture.md, read off the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "mu_llama"
# A file imports its own folder and rows above it; entries of one row don't know each other.
ROWS = (
    {"errors"},
    {"files"},
    {"arrays", "devices", "cache_folder", "hub", "progress"},
    {"audio", "text"},
    {"encoders", "model", "labels"},
    {"checkpoints"},
    {"engine"},
    {"inference"},
    {"training", "musicqa"},
    {"app"},
    {"cli"},
)
ROW_OF = {part: index for index, row in enumerate(ROWS) for part in row}
# A heavy or optional library has one door.
DOORS = {
    "gguf": {"checkpoints/formats/gguf"},
    "av": {"audio/decoders/ffmpeg.py", "audio/decoders/frames.py"},
    "soundfile": {"audio/decoders/soundfile.py", "audio/read.py"},
    "soxr": {"audio/resample.py"},
    "sentencepiece": {"text/tokenizer.py"},
    "onnx": {"encoders/musicnn/graph.py", "engine/onnx/"},
    "onnxruntime": {"encoders/musicnn/network.py", "engine/onnx/"},
    "huggingface_hub": {"hub.py", "encoders/mert/config.py"},
    "accelerate": {"engine/torch/device_map.py", "training/distributed.py"},
    "bitsandbytes": {"engine/torch/quantize.py"},
    "typer": {"cli/"},
    "peft": {"training/trainable.py"},
    "matplotlib": {"training/export.py", "musicqa/statistics.py"},
    "yaml": {"training/config_file.py"},
    "pydantic": {"training/config"},
    "pydantic_core": {"training/config_types.py"},
    "pyarrow": {"training/readers.py", "musicqa/export/hugging_face.py"},
    "openai": {"musicqa/writers/endpoint.py"},
    "llguidance": {"musicqa/writers/local.py"},
    "py3langid": {"musicqa/language.py"},
    "ray": {"musicqa/on_ray.py"},
    "librosa": {"audio/facts/libraries.py"},
    "pyloudnorm": {"audio/facts/libraries.py"},
    "scipy": {"audio/facts/libraries.py"},
    "rich": {"cli/"},
    "gradio": {"app/page.py"},
}
FORBIDDEN = {"fastapi", "tensorflow", "mutagen", "datasets", "torchaudio", "faiss"}


def part_of(path: Path) -> str:
    relative = path.relative_to(SRC)
    return relative.parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
            if node.module == "mu_llama":
                names += [f"mu_llama.{alias.name}" for alias in node.names if (SRC / f"{alias.name}.py").exists()]
    return names


FILES = sorted(path for path in SRC.rglob("*.py") if path != SRC / "__init__.py")


def test_every_part_has_a_row() -> None:
    assert {part_of(path) for path in FILES} == set(ROW_OF)


def test_the_map_shows_the_same_rows() -> None:
    text = (SRC.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = re.search(r"\| row \| what \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    assert table is not None
    cells = [line.split("|")[1] for line in table[1].splitlines()]
    assert [{name.rstrip("/") for name in re.findall(r"`([^`]+)`", cell)} for cell in cells] == list(ROWS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_up(path: Path) -> None:
    own = part_of(path)
    for name in imports_of(path):
        if name.startswith("mu_llama."):
            other = name.split(".")[1]
            assert other == own or ROW_OF[other] < ROW_OF[own], f"{own} imports {other}, which is not above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_heavy_libraries_have_one_door(path: Path) -> None:
    relative = path.relative_to(SRC).as_posix()
    for name in imports_of(path):
        library = name.split(".")[0]
        assert library not in FORBIDDEN, f"{relative} imports {library}"
        if library in DOORS:
            assert any(relative.startswith(door) for door in DOORS[library]), f"{relative} imports {library}"


# The demo goes through the facade: audio for limits and pictures, text for questions; no model, encoder, checkpoint.
APP_MAY_IMPORT = {
    "mu_llama.app", "mu_llama.audio", "mu_llama.text", "mu_llama.errors", "mu_llama.files",
    "mu_llama.engine.sampling.GenerationOptions", "mu_llama.inference.listener.Listener", "mu_llama.inference.results",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted((SRC / "app").glob("*.py")), ids=lambda path: path.name)
def test_the_demo_goes_through_the_listener(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in modules:
            assert name.split(".")[0] not in {"torch", "transformers"}, f"{path.name} imports {name}"
            if name.startswith("mu_llama."):
                allowed = any(f"{name}.".startswith(f"{door}.") for door in APP_MAY_IMPORT)
                assert allowed, f"{path.name} imports {name}; give `Listener` a method for it"


@pytest.mark.parametrize("statement", ["import mu_llama", "import mu_llama.cli.main", "import mu_llama.encoders"])
def test_importing_loads_neither_torch_nor_extras(statement: str) -> None:
    heavy = {"torch", "transformers", "onnx", "onnxruntime", "av", "numpy", "peft", "gradio"}
    code = f"{statement}; import sys; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("words", [["--help"], ["ask", "--help"], ["musicqa", "build", "--help"]], ids=" ".join)
def test_help_imports_the_command_line_alone(words: list[str]) -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        f"sys.argv = ['mu-llama', *{words!r}]\n"
        "from mu_llama.cli.main import app\n"
        "try:\n    app()\nexcept SystemExit as e:\n    assert not e.code\n"
        "print('loaded', *sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()[1:]
    used = {name.split(".")[0] for path in FILES for name in imports_of(path)} - sys.stdlib_module_names
    ours = {"mu_llama", "typer", "rich", "pydantic", "pydantic_core"}  # typer imports the last two where they are
    assert {name.split(".")[0] for name in loaded} & used <= ours
    parts = {name.split(".")[1] for name in loaded if name.startswith("mu_llama.")}
    assert parts <= {
        "cli",
        *ROWS[0],
        *ROWS[1],
        *ROWS[2],
        "labels",
        "musicqa",
    }  # names of corpora and formats, for the options
