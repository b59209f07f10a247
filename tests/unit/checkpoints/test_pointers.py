"""Git LFS pointers are named as such, whichever file of a model they stand for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mu_llama.checkpoints.convert import ConvertOptions, convert_to_folder
from mu_llama.checkpoints.load import find_parts
from mu_llama.cli.main import typer_app

SET_A = Path(__file__).parents[2] / "golden" / "set_a"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 5161212\n"
CHECKPOINT = "checkpoint_finetune_namespace.pth"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and beside it its LLaMA in each layout, its MERT and its index."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copy(SET_A / CHECKPOINT, root / "checkpoint.pth")
    shutil.copytree(SET_A / "llama", root / "meta")
    shutil.copytree(SET_A / "mert", root / "mert")
    shutil.copy(SET_A / "knn" / "knn.index", root)
    parts = find_parts(root / "checkpoint.pth", llama=root / "meta", encoder=root / "mert", home=root)
    convert_to_folder(parts, root / "native", ConvertOptions(encoder="copy"))
    shutil.copytree(root / "native" / "llama", root / "hf")
    weights = (root / "hf" / "model.safetensors").read_bytes()
    shutil.copytree(root / "hf", root / "sharded")
    (root / "sharded" / "model.safetensors").unlink()
    (root / "sharded" / "model-1.safetensors").write_bytes(weights)
    index = {"weight_map": {"model.norm.weight": "model-1.safetensors"}}
    (root / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    (root / "llama.gguf").write_bytes(b"GGUF")
    return root


def asking(root: Path, *, llama: str = "meta", more: tuple[str, ...] = ()) -> list[str]:
    model = ["--model", str(root / "checkpoint.pth"), "--llama", str(root / llama), "--encoder", str(root / "mert")]
    return ["ask", str(SET_A / "audio_short.wav"), "-q", "What?", "--no-cache", "--max-new-tokens", "2", *model, *more]


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint.pth", "meta/tokenizer.model", "meta/7B/params.json", "meta/7B/consolidated.00.pth", "llama.gguf",
        "hf/config.json", "hf/model.safetensors", "hf/tokenizer.model", "sharded/model-1.safetensors",
        "sharded/model.safetensors.index.json", "mert/config.json", "mert/preprocessor_config.json",
        "mert/pytorch_model.bin", "knn.index",
    ],
)  # fmt: skip
def test_a_pointer_is_named(name: str, whole: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "root"))
    assert (root / name).is_file()
    (root / name).write_text(POINTER)
    layout = name.split("/")[0] if name.startswith(("hf", "sharded", "llama.gguf")) else "meta"
    more = ("--knn-index", str(root / name), "--knn-weight", "0.5") if name == "knn.index" else ()
    said_of(root / name, asking(root, llama=layout, more=more))


@pytest.mark.parametrize("name", ["config.json", "adapter.safetensors", "llama/config.json", "llama/model.safetensors"])
def test_a_pointer_in_a_model_folder_is_named(name: str, whole: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole / "native", tmp_path / "native"))
    (root / name).write_text(POINTER)
    said_of(root / name, ["ask", str(SET_A / "audio_short.wav"), "-q", "What?", "--no-cache", "--model", str(root)])


def said_of(path: Path, line: list[str]) -> None:
    result = CliRunner().invoke(typer_app, line)
    assert result.exit_code == 2
    assert "Git LFS pointer" in result.stderr
    assert "`git lfs pull`" in result.stderr
    assert path.name in result.stderr
    assert result.stderr.count("error: ") == 1


def test_sentencepiece_behind_a_pointer_is_not_needed_where_another_fits(whole: Path, tmp_path: Path) -> None:
    """Weights beside a checkpoint that holds the LLaMA are left alone, pointers or not."""
    root = Path(shutil.copytree(whole, tmp_path / "root"))
    shutil.copy(SET_A / "checkpoint_finetune.pth", root / "checkpoint.pth")
    (root / "meta" / "7B" / "consolidated.00.pth").write_text(POINTER)
    assert CliRunner().invoke(typer_app, asking(root)).exit_code == 0
