"""Trees as users have them: each file is named by its content, and roles are given or a clear error is."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mu_llama.checkpoints import detect as detect_module
from mu_llama.checkpoints.choose import ChosenPaths, choose_parts, explain_wrong_role
from mu_llama.checkpoints.detect import detect, scan_tree
from mu_llama.checkpoints.formats.format import Detection, Role
from mu_llama.errors import CheckpointError

SET_A = Path(__file__).parents[2] / "golden" / "set_a"
FULL = SET_A / "checkpoint_finetune.pth"
ADAPTER_ONLY = SET_A / "checkpoint_finetune_namespace.pth"
DELTA = SET_A / "checkpoint_finetune_delta_altrank.pth"
OLD_KEYS = SET_A / "checkpoint_old_llma_keys.pth"
GGUF = b"GGUF\x03\x00\x00\x00" + bytes(64)


class Evil:
    """Runs code when an unguarded pickle is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def link(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)
    return target


def save(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def write_json(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def baseline(path: Path) -> Path:
    tensors = {"image_bind_proj.weight": torch.zeros(2, 2), "llama.layers.0.attention.gate": torch.zeros(1)}
    return save(path, {"model": tensors})


def meta_llama(root: Path, *, weights: bool = True, tokenizer: bool = True) -> Path:
    """The README's layout: tokenizer above the folder with params.json."""
    folder = shutil.copytree(
        SET_A / "llama" / "7B", root / "7B", ignore=None if weights else shutil.ignore_patterns("*.pth")
    )
    if tokenizer:
        shutil.copy(SET_A / "llama" / "tokenizer.model", root)
    return Path(folder)


def hugging_face_llama(folder: Path) -> Path:
    write_json(folder / "config.json", {"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096})
    (folder / "model.safetensors").touch()
    (folder / "tokenizer.json").touch()
    return folder


def own_model(folder: Path) -> Path:
    write_json(folder / "config.json", {"format": "mu-llama/1", "name": "mine"})
    return folder


def readme_tree(root: Path, checkpoint: Path = FULL) -> Path:
    """The tree that the published README shows."""
    link(checkpoint, root / "checkpoint.pth")
    baseline(root / "7B.pth")
    meta_llama(root / "LLaMA")
    shutil.copy(SET_A / "knn" / "knn.index", root)
    return root


def kinds(found: list[Detection], root: Path) -> list[tuple[str, str]]:
    return [(item.path.relative_to(root).as_posix(), item.kind) for item in found]


def error_of(root: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        choose_parts(scan_tree(root), root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "kind", "note", "holds"),
    [
        (FULL, "published checkpoint", "4 conditioned layers of width 32, LLaMA inside, MERT inside, LoRA rank 16",
         {"adapter", "llama", "encoder"}),
        (SET_A / "checkpoint_pretrain_legacy_bridge.pth", "published checkpoint",
         "4 conditioned layers of width 32, LLaMA inside, MERT inside", {"adapter", "llama", "encoder"}),
        (ADAPTER_ONLY, "published checkpoint",
         "4 conditioned layers of width 32, LoRA rank 16, no LLaMA inside, no MERT inside", {"adapter"}),
        (DELTA, "published checkpoint", "a delta without the audio adapter, LoRA rank 4", set()),
        (OLD_KEYS, "published checkpoint",
         "a delta without the audio adapter, 4 conditioned layers of width 32", set()),
        (SET_A / "llama" / "7B", "Meta LLaMA", "6 layers of width 32, 1 shard", {"llama", "tokenizer"}),
        (SET_A / "llama-sharded" / "7B", "Meta LLaMA", "6 layers of width 32, 2 shards", {"llama", "tokenizer"}),
        (SET_A / "llama" / "7B" / "params.json", "Meta LLaMA", "6 layers of width 32, 1 shard",
         {"llama", "tokenizer"}),
        (SET_A / "llama" / "tokenizer.model", "tokenizer", "SentencePiece", {"tokenizer"}),
        (SET_A / "llama" / "7B" / "consolidated.00.pth", "part of a folder", "LLaMA weights in Meta's layout", set()),
        (SET_A / "mert", "MERT", "4 layers of width 24, weights in 1 file", {"encoder"}),
        (SET_A / "mert_variant_postnorm", "MERT", "2 layers of width 24, weights in 1 file", {"encoder"}),
        (SET_A / "mert" / "pytorch_model.bin", "part of a folder", "MERT weights", set()),
        (SET_A / "mert_variant_postnorm" / "model.safetensors", "part of a folder", "MERT weights", set()),
        (SET_A / "mert" / "config.json", "part of a folder", "settings", set()),
        (SET_A / "knn" / "knn.index", "faiss index", "128 vectors of width 24, type IxFI", set()),
        (SET_A / "expected.json", "unknown", "not a file of weights", set()),
        (SET_A / "audio_short.wav", "unknown", "not a file of weights", set()),
        (SET_A, "unknown", "a folder that is no model itself", set()),
        (SET_A / "nothing", "unknown", "no such file or folder", set()),
    ],
)  # fmt: skip
def test_golden_files_are_named(path: Path, kind: str, note: str, holds: set[str]) -> None:
    found = detect(path)
    assert (found.path, found.kind, set(found.holds)) == (path, kind, holds)
    assert sorted(found.note.split(", ")) == sorted(note.split(", "))


def test_weights_of_something_else_are_named_by_a_key() -> None:
    assert re.search("another model, with keys such as '.*/", detect(SET_A / "expected.safetensors").note)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (FULL, "published checkpoint"),
        (SET_A / "knn" / "knn.index", "faiss index"),
        (SET_A / "llama" / "tokenizer.model", "tokenizer"),
        (SET_A / "mert_variant_postnorm" / "model.safetensors", "part of a folder"),
    ],
)
def test_content_decides_and_not_the_name(source: Path, kind: str, tmp_path: Path) -> None:
    for name in ("notes.txt", "knn.gguf", "checkpoint"):
        assert detect(link(source, tmp_path / name)).kind == kind
    assert scan_tree(tmp_path)[0].kind == kind


def test_gguf_by_content(tmp_path: Path) -> None:
    (tmp_path / "llama.bin").write_bytes(GGUF)
    assert detect(tmp_path / "llama.bin").kind == "GGUF"
    (tmp_path / "text.gguf").write_text("not that")
    assert detect(tmp_path / "text.gguf") == Detection(
        tmp_path / "text.gguf", "unknown", "its content isn't that of a .gguf file"
    )


@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"model": tensors, "args": Namespace(x=1)}])
@pytest.mark.parametrize("name", ["image_bind_agg.weight", "module.image_bind.x", "module.llma.image_bind_proj.bias"])
def test_the_baseline_in_every_spelling(name: str, wrap: Callable[[Any], dict[str, Any]], tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoint.pth", wrap({name: torch.zeros(2), "prefix_query.weight": torch.zeros(2, 2)}))
    assert detect(path).kind == "ImageBind-LLM baseline"


def test_old_prefixes_count_as_todays(tmp_path: Path) -> None:
    tensors = {"module.mu_mert_agg.weight": torch.zeros(1), "module.llma.layers.0.attention.wq.weight": torch.zeros(1)}
    assert detect(save(tmp_path / "x.pth", tensors)).holds == {"adapter", "llama"}


@pytest.mark.parametrize(
    ("key", "kind", "note"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "part of a folder", "peft adapter"),
        ("model.layers.0.self_attn.q_proj.weight", "part of a folder", "Hugging Face's layout"),
        ("adapter.projection.weight", "part of a folder", "mu-llama folder"),
        ("clip_proj.weight", "unknown", "another model, with keys such as 'clip_proj.weight'"),
    ],
)
def test_loose_weights(key: str, kind: str, note: str, tmp_path: Path) -> None:
    save(tmp_path / "x.pth", {key: torch.zeros(1)})
    save_file({key: torch.zeros(1)}, tmp_path / "x.safetensors")
    for path in (tmp_path / "x.pth", tmp_path / "x.safetensors"):
        assert detect(path).kind == kind
        assert note in detect(path).note


def test_keys_of_a_checkpoint_that_cannot_be_read_from_there(tmp_path: Path) -> None:
    save_file({"mu_mert_agg.weight": torch.zeros(1)}, tmp_path / "checkpoint.safetensors")
    assert "expected the .pth" in detect(tmp_path / "checkpoint.safetensors").note
    mixed = save(tmp_path / "other.pth", {"mu_mert_agg.weight": torch.zeros(1), "iu_vit_agg.weight": torch.zeros(1)})
    assert "keys that MU-LLaMA doesn't have, such as 'iu_vit_agg.weight'" in detect(mixed).note
    assert "without tensors" in detect(save(tmp_path / "empty.pth", {"model": {}, "epoch": 3})).note


@pytest.mark.parametrize(
    ("config", "kind", "note"),
    [
        ({"format": "mu-llama/1", "name": "mine"}, "mu-llama folder", "named 'mine', format mu-llama/1"),
        ({"model_type": "hubert", "num_hidden_layers": 12, "hidden_size": 768}, "MERT", "12 layers of width 768"),
        ({"conv_kernel": [10, 3]}, "MERT", "no weights"),
        ({"model_type": "llama"}, "Hugging Face LLaMA", "no weights, no tokenizer"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "Hugging Face LLaMA", "quantized"),
        ({"model_type": "qwen2"}, "unknown", "a Hugging Face model of type 'qwen2'"),
        ({"learning_rate": 1}, "unknown", "a folder that is no model itself"),
    ],
)
def test_folders_by_their_config(config: dict[str, Any], kind: str, note: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", config)
    assert detect(tmp_path).kind == kind
    assert note in detect(tmp_path).note
    if detect(tmp_path).kind != "unknown" or "type" in note:
        assert scan_tree(tmp_path) == [detect(tmp_path)]


def test_peft_adapters_are_not_supported(tmp_path: Path) -> None:
    write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA"})
    assert detect(tmp_path) == Detection(tmp_path, "peft adapter", "not supported")
    assert "peft adapter (these aren't supported)" in str(explain_wrong_role(tmp_path, "model"))
    assert error_of(tmp_path) == explain_wrong_role(tmp_path, "model")


def test_damaged_settings_give_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert re.search(r"^config\.json: can't be read as JSON", detect(tmp_path).note)
    (tmp_path / "config.json").unlink()
    write_json(tmp_path / "params.json", {"dim": 32})
    assert re.search(r"^params\.json: not LLaMA's params\.json", detect(tmp_path).note)


def test_a_bad_file_never_runs_and_hides_no_other(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    tree = tmp_path / "tree"
    readme_tree(tree)
    save(tree / "a_evil.pth", {"model": {"mu_mert_agg.weight": torch.zeros(1)}, "args": Evil(marker)})
    (tree / "b_cut.pth").write_bytes(FULL.read_bytes()[:5000])
    (tree / "c_cut_without_suffix").write_bytes(FULL.read_bytes()[:5000])
    (tree / "d_page.pth").write_text("<!DOCTYPE html>")
    (tree / "e_pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tree / "f_link.pth").symlink_to(tmp_path / "gone.pth")
    (tree / "g_loop.pth").symlink_to("g_loop.pth")
    (tree / "h_empty.pth").touch()
    flipped = bytearray(OLD_KEYS.read_bytes())
    flipped[90:200] = bytes(110)
    (tree / "i_flipped.pth").write_bytes(flipped)
    os.mkfifo(tree / "j_pipe.pth")
    found = {item.path.name: item for item in scan_tree(tree)}
    assert not marker.exists()
    reasons = {
        "a_evil.pth": "refused, because it holds more than tensors",
        "b_cut.pth": "not a whole PyTorch file",
        "c_cut_without_suffix": "not a whole PyTorch file",
        "d_page.pth": "not a whole PyTorch file",
        "e_pointer.pth": "Git LFS pointer",
        "f_link.pth": f"a broken link to {tmp_path / 'gone.pth'}",
        "g_loop.pth": "a broken link to g_loop.pth",
        "h_empty.pth": "not a whole PyTorch file",
        "i_flipped.pth": "",
    }
    for name, reason in reasons.items():
        assert found[name].kind == "unknown", name
        assert reason in found[name].note
        assert str(tree) not in found[name].note
    assert "j_pipe.pth" in found["tree"].note
    assert choose_parts(list(found.values()), tree).model == tree / "checkpoint.pth"


def test_any_failure_of_a_reader_is_kept_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise IndexError("pop from empty list")

    monkeypatch.setattr("mu_llama.checkpoints.detect.read_torch_file", fail)
    (tmp_path / "x.pth").touch()
    (tmp_path / "y.gguf").write_bytes(GGUF)
    assert [item.kind for item in scan_tree(tmp_path)] == ["unknown", "GGUF"]
    assert detect(tmp_path / "x.pth").note == "damaged (IndexError: pop from empty list)"


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="only root can become someone with less")
def test_what_may_not_be_read_hides_nothing(tmp_path: Path) -> None:
    # Not below tmp_path, whose parents are closed to others.
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("a_locked/x.gguf", "b.gguf", "c.gguf"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(GGUF)
        link(root / "a_locked" / "x.gguf", root / "d.pth")
        (root / "b.gguf").chmod(0)
        (root / "a_locked").chmod(0)
        root.chmod(0o755)
        os.seteuid(65534)
        try:
            found = scan_tree(root)
            explanation = explain_wrong_role(root / "d.pth", "llama")
        finally:
            os.seteuid(0)
        refused = "can't be read (Permission denied)"
        assert [(item.path.name, item.kind, item.note) for item in found if item.kind == "unknown"] == [
            ("b.gguf", "unknown", refused),
            ("d.pth", "unknown", refused),
            ("a_locked", "unknown", refused),
        ]
        assert kinds(found, root)[1] == ("c.gguf", "GGUF")
        assert refused in str(explanation)


def test_the_tree_of_the_readme(tmp_path: Path) -> None:
    root = readme_tree(tmp_path / "ckpts")
    assert kinds(scan_tree(root), root) == [
        ("7B.pth", "ImageBind-LLM baseline"),
        ("checkpoint.pth", "published checkpoint"),
        ("knn.index", "faiss index"),
        ("LLaMA/tokenizer.model", "tokenizer"),
        ("LLaMA/7B", "Meta LLaMA"),
    ]
    expected = ChosenPaths(root / "checkpoint.pth", root / "LLaMA" / "7B", None, root / "knn.index")
    assert choose_parts(scan_tree(root), root) == expected
    link(SET_A / "mert", root / "MERT-v1-330M")
    assert choose_parts(scan_tree(root), root).encoder == root / "MERT-v1-330M"
    # Also the repository that has the tree in it.
    (tmp_path / "README.md").touch()
    assert choose_parts(scan_tree(tmp_path), tmp_path).model == root / "checkpoint.pth"


def test_one_flat_folder(tmp_path: Path) -> None:
    shutil.copytree(SET_A / "llama" / "7B", tmp_path, dirs_exist_ok=True)
    shutil.copy(SET_A / "llama" / "tokenizer.model", tmp_path)
    link(ADAPTER_ONLY, tmp_path / "checkpoint.pth")
    link(SET_A / "mert", tmp_path / "MERT")
    assert kinds(scan_tree(tmp_path), tmp_path) == [
        (".", "Meta LLaMA"), ("checkpoint.pth", "published checkpoint"), ("MERT", "MERT"),
    ]  # fmt: skip
    expected = ChosenPaths(tmp_path / "checkpoint.pth", tmp_path, tmp_path / "MERT", None)
    assert choose_parts(scan_tree(tmp_path), tmp_path) == expected
    assert explain_wrong_role(tmp_path, "model") is None
    assert explain_wrong_role(tmp_path, "llama") is None


def test_a_llama_without_weights_is_enough_for_a_full_checkpoint(tmp_path: Path) -> None:
    folder = meta_llama(tmp_path / "LLaMA", weights=False)
    assert detect(folder).note == "6 layers of width 32, no weights, only params.json and tokenizer"
    link(FULL, tmp_path / "checkpoint.pth")
    assert choose_parts(scan_tree(tmp_path), tmp_path) == ChosenPaths(tmp_path / "checkpoint.pth", folder)
    (tmp_path / "checkpoint.pth").unlink()
    link(ADAPTER_ONLY, tmp_path / "checkpoint.pth")
    message = error_of(tmp_path)
    assert "missing: a LLaMA" in message
    assert "missing: a MERT" in message
    assert f"--model {tmp_path / 'checkpoint.pth'} --llama FOLDER --encoder FOLDER" in message


def test_a_llama_without_a_tokenizer_is_not_enough(tmp_path: Path) -> None:
    meta_llama(tmp_path / "LLaMA", tokenizer=False)
    link(FULL, tmp_path / "checkpoint.pth")
    message = error_of(tmp_path)
    assert "LLaMA/7B: Meta LLaMA, 6 layers of width 32, 1 shard, no tokenizer.model beside or above" in message
    assert "missing: a LLaMA" in message


@pytest.mark.parametrize("form", ["Hugging Face", "GGUF"])
def test_other_llamas(form: str, tmp_path: Path) -> None:
    link(FULL, tmp_path / "checkpoint.pth")
    if form == "GGUF":
        llama = tmp_path / "llama.weights"
        llama.write_bytes(GGUF)
    else:
        llama = hugging_face_llama(tmp_path / "llama-hf")
    assert choose_parts(scan_tree(tmp_path), tmp_path).llama == llama


def test_two_layouts_of_one_llama_are_ambiguous_unless_one_is_given(tmp_path: Path) -> None:
    root = readme_tree(tmp_path / "my ckpts")
    hugging_face_llama(root / "LLaMA-hf")
    message = error_of(root)
    assert "ambiguous: LLaMA/7B and LLaMA-hf can each be --llama" in message
    assert message.endswith(f"--model '{root / 'checkpoint.pth'}' --llama FOLDER")
    chosen = choose_parts(scan_tree(root), root, given={"llama"})
    assert chosen == ChosenPaths(root / "checkpoint.pth", None, None, root / "knn.index")


def test_every_file_is_listed_when_two_checkpoints_are_there(tmp_path: Path) -> None:
    root = readme_tree(tmp_path)
    link(SET_A / "checkpoint_pretrain.pth", root / "older.pth")
    message = error_of(root)
    for item in scan_tree(root):
        assert f"  {item.path.relative_to(root)}: {item.kind}, {item.note}\n" in message
    assert "ambiguous: checkpoint.pth and older.pth can each be --model" in message
    assert message.endswith(f"--model FILE --llama {root / 'LLaMA' / '7B'}")


def test_base_and_delta_are_not_put_together(tmp_path: Path) -> None:
    root = readme_tree(tmp_path)
    link(DELTA, root / "delta.pth")
    message = error_of(root)
    assert "undecided: whether delta.pth goes on top of checkpoint.pth" in message
    assert "--model FILE" in message
    (root / "checkpoint.pth").unlink()
    assert "missing: MU-LLaMA that is whole" in error_of(root)


def test_the_baseline_plays_no_role(tmp_path: Path) -> None:
    baseline(tmp_path / "checkpoint.pth")
    meta_llama(tmp_path / "LLaMA")
    message = error_of(tmp_path)
    assert "checkpoint.pth: ImageBind-LLM baseline, not MU-LLaMA" in message
    assert "missing: MU-LLaMA that is whole; expected checkpoint.pth of mu-llama/MU-LLaMA" in message


def test_two_encoders_or_indices_are_ambiguous(tmp_path: Path) -> None:
    root = readme_tree(tmp_path)
    for name in ("mert", "mert_variant_postnorm"):
        link(SET_A / name, root / name)
    shutil.copy(SET_A / "knn" / "knn.index", root / "second.index")
    message = error_of(root)
    assert "ambiguous: mert and mert_variant_postnorm can each be --encoder" in message
    assert "ambiguous: knn.index and second.index can each be --knn-index" in message
    assert message.endswith("--encoder FOLDER --knn-index FILE")


def test_a_folder_of_ours_wins(tmp_path: Path) -> None:
    root = readme_tree(tmp_path)
    own = own_model(root / "converted")
    link(SET_A / "checkpoint_pretrain.pth", own / "inside.pth")
    assert choose_parts(scan_tree(root), root) == ChosenPaths(own)
    assert choose_parts(scan_tree(own), own) == ChosenPaths(own)
    own_model(root / "second")
    message = error_of(root)
    assert "ambiguous: converted and second can each be --model" in message
    assert message.endswith("--model FOLDER")


def test_nothing_there(tmp_path: Path) -> None:
    message = error_of(tmp_path)
    assert "found\n  nothing\nmissing: MU-LLaMA" in message
    assert message.endswith("name them: --model FILE --llama FOLDER --encoder FOLDER")
    assert "no such file or folder" in error_of(tmp_path / "gone")


def test_a_root_that_is_something_else_itself() -> None:
    assert re.search("mert is a MERT, not MU-LLaMA; .*give this one as --encoder$", error_of(SET_A / "mert"))


def test_long_lists_are_cut(tmp_path: Path) -> None:
    for index in range(70):
        (tmp_path / f"{index:02}.pth").touch()
    assert "  and 10 more\n" in error_of(tmp_path)


def test_where_the_survey_goes(tmp_path: Path) -> None:
    deep = tmp_path / "1" / "2" / "3" / "4"
    (deep / "5").mkdir(parents=True)
    (deep / "in.gguf").write_bytes(GGUF)
    (deep / "5" / "out.gguf").write_bytes(GGUF)
    for skipped in (".hidden", "__pycache__", "mert/inside"):
        (tmp_path / skipped).mkdir(parents=True)
        (tmp_path / skipped / "skipped.gguf").write_bytes(GGUF)
    (tmp_path / ".hidden.gguf").write_bytes(GGUF)
    shutil.copy(SET_A / "mert" / "config.json", tmp_path / "mert")
    (tmp_path / "1" / "up").symlink_to(tmp_path)
    (tmp_path / "2").symlink_to(tmp_path / "1")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "song.wav").touch()
    found = scan_tree(tmp_path)
    assert kinds(found, tmp_path) == [
        (".", "unknown"),
        ("1/2/3/4/in.gguf", "GGUF"),
        ("1/2/3/4", "unknown"),
        ("mert", "MERT"),
    ]
    assert [item.note for item in found if item.kind == "unknown"] == [
        "2 files that are no model, such as notes.txt",
        "too deep to look into 5",
    ]
    assert scan_tree(tmp_path) == found
    assert kinds(scan_tree(tmp_path, max_depth=5), tmp_path)[2] == ("1/2/3/4/5/out.gguf", "GGUF")


def test_the_same_file_under_two_names_counts_once(tmp_path: Path) -> None:
    root = readme_tree(tmp_path)
    link(root / "checkpoint.pth", root / "latest.pth")
    link(root / "LLaMA", root / "llama2")
    assert choose_parts(scan_tree(root), root).model == root / "checkpoint.pth"


def test_the_hubs_cache(tmp_path: Path) -> None:
    repo = tmp_path / "models--mu-llama--MU-LLaMA"
    (repo / "blobs").mkdir(parents=True)
    snapshot = repo / "snapshots" / "0f"
    shutil.copy(FULL, repo / "blobs" / "aa")
    shutil.copy(SET_A / "llama" / "7B" / "params.json", repo / "blobs" / "bb")
    shutil.copy(SET_A / "llama" / "tokenizer.model", repo / "blobs" / "cc")
    for blob, name in (("aa", "checkpoint.pth"), ("bb", "LLaMA/7B/params.json"), ("cc", "LLaMA/tokenizer.model")):
        link(repo / "blobs" / blob, snapshot / name)
    for root in (repo, snapshot):
        assert choose_parts(scan_tree(root), root) == ChosenPaths(
            snapshot / "checkpoint.pth", snapshot / "LLaMA" / "7B"
        )


def test_a_tree_of_other_things_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect_module, "_MAX_FILES", 3)
    for name in "abcd":
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match="too many files"):
        scan_tree(tmp_path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A README tree with one of everything that is mixed up."""
    root = readme_tree(tmp_path_factory.mktemp("tree") / "ckpts")
    link(ADAPTER_ONLY, root / "adapter.pth")
    link(DELTA, root / "delta.pth")
    link(SET_A / "mert", root / "MERT")
    write_json(root / "peft" / "adapter_config.json", {"peft_type": "LORA"})
    own_model(root / "own")
    hugging_face_llama(root / "hf")
    (root / "gguf").mkdir()
    (root / "gguf" / "llama.gguf").write_bytes(GGUF)
    (root / "empty").mkdir()
    (root / "cut.pth").write_bytes(FULL.read_bytes()[:5000])
    write_json(root / "qwen" / "config.json", {"model_type": "qwen2"})
    link(SET_A / "mert_variant_postnorm", root / "holder" / "MERT-95M")
    link(SET_A / "llama-sharded" / "7B" / "consolidated.00.pth", root / "loose" / "consolidated.00.pth")
    return root


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("checkpoint.pth", "model"), ("adapter.pth", "model"), ("own", "model"), (".", "model"),
        ("LLaMA", "llama"), ("LLaMA/7B", "llama"), ("LLaMA/7B/params.json", "llama"), ("hf", "llama"),
        ("gguf", "llama"), ("gguf/llama.gguf", "llama"), ("MERT", "encoder"), ("knn.index", "knn_index"),
        ("m-a-p/MERT-v1-330M", "encoder"),
    ],
)  # fmt: skip
def test_what_fits_needs_no_explanation(name: str, role: Role, tree: Path) -> None:
    assert explain_wrong_role(tree / name, role) is None


@pytest.mark.parametrize(
    ("name", "role", "words"),
    [
        ("7B.pth", "model", " is the ImageBind-LLM baseline, not MU-LLaMA; expected checkpoint.pth of "
         "mu-llama/MU-LLaMA: download that"),
        ("7B.pth", "llama", "is the ImageBind-LLM baseline, not a LLaMA; expected a folder with params.json"),
        ("checkpoint.pth", "llama", "is a published MU-LLaMA checkpoint, not a LLaMA; .*give this one as --model$"),
        ("checkpoint.pth", "encoder", "--model and leave --encoder out, it brings its own$"),
        ("adapter.pth", "encoder", "give this one as --model$"),
        ("own", "encoder", "a mu-llama model folder, not a MERT; .*leave --encoder out"),
        ("delta.pth", "model", "part of a published checkpoint .*rank 4.*the checkpoint that it goes on top of$"),
        ("LLaMA", "model", "LLaMA holds 7B, a LLaMA in Meta's layout, not MU-LLaMA; .*give this one as --llama$"),
        ("LLaMA/7B", "model", "7B is a LLaMA in Meta's layout, not MU-LLaMA; .*give this one as --llama$"),
        ("hf", "model", "is a LLaMA in Hugging Face's layout, not MU-LLaMA; .*give this one as --llama$"),
        ("LLaMA", "encoder", "a LLaMA in Meta's layout, not a MERT; expected a MERT folder.*as --llama$"),
        ("gguf/llama.gguf", "encoder", "is a GGUF language model, not a MERT; .*as --llama$"),
        ("MERT", "llama", "is a MERT, not a LLaMA; .*give this one as --encoder$"),
        ("knn.index", "model", "is a faiss index, not MU-LLaMA; .*as --knn-index$"),
        ("MERT", "knn_index", "is a MERT, not a faiss index; expected a file such as knn.index"),
        ("peft", "model", r"is a peft adapter \(these aren't supported\), not MU-LLaMA; expected checkpoint.pth"),
        ("LLaMA/tokenizer.model", "llama", "is a tokenizer alone, not a LLaMA; expected a folder with params.json"),
        ("LLaMA/7B/consolidated.00.pth", "model", r"only one file of a folder \(LLaMA weights in Meta's layout\); "
         "expected checkpoint.pth.*: give its folder, --llama .*LLaMA/7B$"),
        ("LLaMA/7B/consolidated.00.pth", "llama", "expected a folder.*: give its folder, --llama .*LLaMA/7B$"),
        ("loose/consolidated.00.pth", "llama", "only one file of a folder.*: give that$"),
        ("own/config.json", "model", r"one file of a folder \(settings\).*: give its folder, --model .*own$"),
        ("cut.pth", "model", r"cut.pth: not a whole PyTorch file.*download it again \(--model takes checkpoint.pth"),
        ("empty", "model", "empty: a folder that is no model itself .--model takes"),
        ("qwen", "llama", r"a Hugging Face model of type 'qwen2' \(--llama takes"),
        ("holder", "encoder", "isn't a MERT itself, but holds 1: give --encoder .*holder/MERT-95M$"),
        (".", "llama", "holds 3: give --llama .*LLaMA/7B or --llama .*gguf/llama.gguf or --llama .*hf$"),
    ],
)  # fmt: skip
def test_a_wrong_role_is_explained_in_one_line(name: str, role: Role, words: str, tree: Path) -> None:
    explanation = explain_wrong_role(tree / name, role)
    assert explanation is not None
    assert explanation.startswith(str(tree / name))
    assert "\n" not in explanation
    assert re.search(words, explanation), explanation
