"""The import rules of docs/architecture.md, read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "mu_llama"
# A file imports its own folder and rows above it; entries of one row don't know each other.
ROWS = (
    {"errors", "git_lfs"},
    {"devices", "hub", "progress", "files"},
    {"audio", "text", "sampling"},
    {"encoders", "model", "labels"},
    {"checkpoints", "generation"},
    {"inference"},
    {"training", "musicqa"},
    {"app"},
    {"cli"},
)
ROW_OF = {part: index for index, row in enumerate(ROWS) for part in row}
# A heavy or optional library has one door.
DOORS = {
    "gguf": {"checkpoints/gguf"},
    "av": {"audio/ffmpeg_decoder.py", "audio/frames.py"},
    "soundfile": {"audio/soundfile_decoder.py", "audio/wav_writing.py"},
    "soxr": {"audio/resample.py"},
    "sentencepiece": {"text/tokenizer.py"},
    "huggingface_hub": {"hub.py", "encoders/mert/config.py", "checkpoints/hugging_face.py", "checkpoints/gguf.py"},
    "accelerate": {"checkpoints/device_map.py", "training/distributed.py"},
    "bitsandbytes": {"model/quantization.py"},
    "typer": {"cli/"},
    "peft": {"training/trainable.py"},
    "matplotlib": {"training/export.py", "musicqa/plots.py"},
    "yaml": {"training/config_file.py"},
    "pydantic": {"training/config"},
    "pydantic_core": {"training/config_types.py"},
    "pyarrow": {"training/readers.py", "musicqa/export/hugging_face.py"},
    "openai": {"musicqa/writers/endpoint.py"},
    "llguidance": {"musicqa/writers/local.py"},
    "py3langid": {"musicqa/language.py"},
    "ray": {"musicqa/on_ray.py"},
    "librosa": {"audio/facts.py"},
    "pyloudnorm": {"audio/facts.py"},
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


def test_files_keep_their_size() -> None:
    long = {str(path.relative_to(SRC)): n for path in FILES if (n := len(path.read_text().splitlines())) > 340}
    assert not long, f"what are these two of? {long}"


@pytest.mark.parametrize("statement", ["import mu_llama", "import mu_llama.cli.main", "import mu_llama.encoders"])
def test_importing_loads_neither_torch_nor_extras(statement: str) -> None:
    heavy = {"torch", "transformers", "av", "numpy", "peft", "gradio"}
    code = f"{statement}; import sys; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, time\n"
        "sys.argv = ['mu-llama', '--help']\n"
        "from mu_llama.cli.main import app\n"
        "try:\n    app()\nexcept SystemExit as e:\n    assert not e.code\n"
        "assert 'torch' not in sys.modules\n"
        "print('cpu', time.process_time())\n"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout.split()[-1]))
    assert min(seconds) < 0.5, seconds
