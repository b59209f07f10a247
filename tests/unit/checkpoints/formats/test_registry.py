"""A weight format is one file and one line of FORMATS: a made-up one works wherever formats do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mu_llama.checkpoints import formats
from mu_llama.checkpoints.choose import choose_parts, explain_wrong_role
from mu_llama.checkpoints.detect import detect, scan_tree
from mu_llama.checkpoints.formats import meta
from mu_llama.checkpoints.formats.format import Companions, Detection, FileHead, Format, present_parts
from mu_llama.checkpoints.lazy_tensor import LazyTensor, zeros
from mu_llama.checkpoints.load import find_parts, read_llama
from mu_llama.checkpoints.spec import LlamaSpec, ModelSpec
from mu_llama.errors import CheckpointError
from mu_llama.inference.pretrained import load

SET_A = Path(__file__).parents[3] / "golden" / "set_a"
LLAMA, MODEL = b"MADEUP-LLAMA ", b"MADEUP-MODEL "


def recognise_llama(file: FileHead) -> Detection | None:
    holds = present_parts(llama=True, tokenizer=True)
    return Detection(file.path, "made-up", "by a test", holds) if file.head.startswith(LLAMA) else None


def read_made_up_llama(path: Path, weights: Mapping[str, LazyTensor] | None) -> LlamaSpec:
    folder = Path(path.read_bytes().removeprefix(LLAMA).decode())
    return meta.read_meta_llama(meta.find_meta_folder(folder), weights=weights)


def recognise_model(file: FileHead) -> Detection | None:
    return Detection(file.path, "made-up model", "by a test") if file.head.startswith(MODEL) else None


def read_made_up_model(path: Path, companions: Companions) -> ModelSpec:
    published = formats.format_of("published checkpoint")
    assert published is not None
    assert published.read_model is not None
    return published.read_model(Path(path.read_bytes().removeprefix(MODEL).decode()), companions)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    llama = Format(
        "made-up", "a made-up LLaMA", role="llama", recognise_file=recognise_llama, suffix=".madeup",
        read_llama=read_made_up_llama,
    )  # fmt: skip
    model = Format(
        "made-up model", "a made-up model", role="model", recognise_file=recognise_model, read_model=read_made_up_model
    )
    monkeypatch.setattr(formats, "FORMATS", [*formats.FORMATS, llama, model])


@pytest.fixture
def llama_file(tmp_path: Path) -> Path:
    path = tmp_path / "tree" / "llama.madeup"
    path.parent.mkdir()
    path.write_bytes(LLAMA + str(SET_A / "llama").encode())
    return path


def test_it_is_recognised_by_its_content(llama_file: Path) -> None:
    assert detect(llama_file) == Detection(llama_file, "made-up", "by a test", frozenset({"llama", "tokenizer"}))
    assert [item.kind for item in scan_tree(llama_file.parent)] == ["made-up"]
    empty = llama_file.with_name("empty.madeup")
    empty.write_bytes(b"x")
    assert detect(empty).note == "its content isn't that of a .madeup file"


def test_errors_call_it_by_its_phrase(llama_file: Path) -> None:
    assert explain_wrong_role(llama_file, "llama") is None
    explanation = explain_wrong_role(llama_file, "encoder")
    assert explanation is not None
    assert "a made-up LLaMA, not a MERT" in explanation
    assert explanation.endswith("give this one as --llama")
    with pytest.raises(CheckpointError, match="a made-up LLaMA, not MU-LLaMA"):
        find_parts(llama_file, home=Path("unused"))


def test_it_is_read_as_the_llama_beside_a_checkpoint(llama_file: Path) -> None:
    made_up, original = read_llama(llama_file), read_llama(SET_A / "llama")
    assert made_up.tensors.keys() == original.tensors.keys()
    weights = {"norm.weight": zeros((32,), np.dtype(np.float32))}
    with pytest.raises(CheckpointError, match="lack"):  # the weights of a checkpoint reach its reader
        read_llama(llama_file, weights=weights)
    assert load(SET_A / "checkpoint_finetune.pth", llama=llama_file, encoder=SET_A / "mert", dtype="fp32").opened


def test_a_folder_tree_with_it_opens(llama_file: Path) -> None:
    tree = llama_file.parent
    (tree / "checkpoint.pth").symlink_to(SET_A / "checkpoint_finetune_namespace.pth")
    (tree / "MERT").symlink_to(SET_A / "mert")
    chosen = choose_parts(scan_tree(tree), tree)
    assert chosen.llama == llama_file
    assert find_parts(tree, home=Path("unused")).llama.source == read_llama(llama_file).source


def test_a_whole_model_is_a_format_too(tmp_path: Path) -> None:
    path = tmp_path / "model.madeup"
    path.write_bytes(MODEL + str(SET_A / "checkpoint_finetune.pth").encode())
    parts = find_parts(path, llama=SET_A / "llama", encoder=SET_A / "mert", home=Path("unused"))
    assert parts.name == "checkpoint_finetune"


def test_every_kind_has_one_meaning() -> None:
    by_kind: dict[str, set[tuple[str, object]]] = {}
    for entry in formats.all_formats():
        by_kind.setdefault(entry.kind, set()).add((entry.phrase, entry.role))
    assert all(len(meanings) == 1 for meanings in by_kind.values()), by_kind
    for entry in formats.all_formats():
        assert entry.role != "llama" or entry.read_llama is not None
        assert entry.role != "model" or entry.read_model is not None
