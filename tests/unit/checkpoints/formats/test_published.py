"""Published and Meta files: what doesn't fit is refused by name, and nothing in a file ever runs."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mu_llama.checkpoints.formats.faiss import read_faiss_flat
from mu_llama.checkpoints.formats.meta import (
    MetaParams,
    find_meta_folder,
    llama_config_from_meta,
    read_meta_llama,
    read_meta_params,
    read_meta_tensors,
)
from mu_llama.checkpoints.formats.published import adapter_config, read_published
from mu_llama.checkpoints.formats.tensor_files import read_torch_file
from mu_llama.checkpoints.names import interleaved_to_halves
from mu_llama.engine.torch.load import Placement, assemble
from mu_llama.errors import CheckpointError
from tests.factories.published import published_parts
from tests.factories.tensors import stored

SET_A = Path(__file__).parents[3] / "golden" / "set_a"


class Evil:
    """Runs code when an unguarded pickle is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_a_malicious_pickle_never_runs(tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    torch.save({"model": {"x": torch.zeros(1)}, "args": Evil(marker)}, path)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_torch_file(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Evil(marker)))  # noqa: S301 - the trap itself works
    assert marker.exists()


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_torch_file(tmp_path / "gone.pth")
    cut = tmp_path / "cut.pth"
    cut.write_bytes((SET_A / "checkpoint_pretrain.pth").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated"):
        read_torch_file(cut)
    listed = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], listed)
    with pytest.raises(CheckpointError, match="holds a list"):
        read_torch_file(listed)


def save_changed(path: Path, source: str = "checkpoint_pretrain.pth", **changes: torch.Tensor | None) -> Path:
    content = torch.load(SET_A / source, weights_only=True)
    for name, value in changes.items():
        if value is None:
            del content["model"][name]
        else:
            content["model"][name] = value
    torch.save(content, path)
    return path


def open_checkpoint(path: Path, llama: Path = SET_A / "llama") -> None:
    parts = published_parts([path], llama=llama, encoder=SET_A / "mert")
    assemble(parts, Placement(torch.device("cpu"), torch.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu_mert_prjo.weight": torch.zeros(2)}, "mu_mert_prjo"),
        ({"llama.layers.0.attention.wx.weight": torch.zeros(2)}, "attention.wx"),
        ({"prefix_query.weight": None}, "prefix_query"),
        ({"llama.layers.5.attention.gate": None}, "gate for layer 5"),
        ({"mu_mert_f2_2.weight": None}, "missing"),
        ({"mu_mert_f2_2.weight": torch.zeros(3, 4)}, r"\(3, 4\)"),
        ({"mu_mert_proj.weight": torch.zeros(64, 24)}, "64 wide"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(save_changed(tmp_path / "changed.pth", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama.layers.1.attention.lora_wq_l2.weight": None}, "expected l1 and l2"),
        ({"llama.layers.1.attention.lora_wq_l2.weight": torch.zeros(31, 16)}, r"\(31, 16\)"),
        ({"llama.layers.99.attention.lora_wq_l1.weight": torch.zeros(16, 32)}, r"layers\.99"),
        ({"llama.layers.5.attention.gate": torch.zeros(1, 3, 1, 1)}, "gate of layer 5"),
        ({"mu_mert_proj.weight": torch.zeros(4)}, "2 axes"),
        ({"mu_mert_agg.weight": torch.zeros(4)}, "3 axes"),
        ({"llama.layers.2.attention.wk.weight": torch.zeros(31, 32)}, "expected 32 rows"),
    ],
)
def test_wrong_sizes_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(save_changed(tmp_path / "changed.pth", source="checkpoint_finetune.pth", **changes))


def test_unknown_keys_come_with_the_nearest_known(tmp_path: Path) -> None:
    path = save_changed(tmp_path / "typo.pth", **{"mu_mert_agg.wieght": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"mu_mert_agg\.wieght.*nearest known: 'mu_mert_agg\.weight'"):
        open_checkpoint(path)


def test_sizes_come_from_shapes() -> None:
    config = adapter_config(read_published([SET_A / "checkpoint_pretrain_legacy_bridge.pth"]), num_heads=4)
    assert config.legacy_bridge
    assert (config.num_blocks, config.encoder_width, config.hidden_size) == (3, 24, 32)


def test_grouped_queries_are_read_off_the_weights() -> None:
    zeros = {
        "tok_embeddings.weight": torch.zeros(10, 32),
        "layers.0.attention.wq.weight": torch.zeros(32, 32),
        "layers.0.attention.wk.weight": torch.zeros(16, 32),
        "layers.0.feed_forward.w1.weight": torch.zeros(48, 32),
    }
    tensors = stored(zeros | {"norm.weight": torch.zeros(32)})
    config = llama_config_from_meta(tensors, MetaParams(num_heads=4, norm_eps=1e-5))
    assert (config.num_key_value_heads, config.head_dim, config.intermediate_size) == (2, 8, 48)
    with pytest.raises(CheckpointError, match="5 heads"):
        llama_config_from_meta(tensors, MetaParams(num_heads=5, norm_eps=1e-5))


def test_meta_folders_are_found_flat_or_nested(tmp_path: Path) -> None:
    flat = tmp_path / "Llama-2-7b"
    shutil.copytree(SET_A / "llama" / "7B", flat)
    shutil.copy(SET_A / "llama" / "tokenizer.model", flat)
    assert find_meta_folder(flat).tokenizer == flat / "tokenizer.model"
    assert find_meta_folder(SET_A / "llama").tokenizer == SET_A / "llama" / "tokenizer.model"
    assert find_meta_folder(SET_A / "llama" / "7B").tokenizer == SET_A / "llama" / "tokenizer.model"
    with pytest.raises(CheckpointError, match=r"no params\.json"):
        find_meta_folder(flat / "nothing")
    (flat / "params.json").write_text("{}")
    with pytest.raises(CheckpointError, match="n_heads"):
        read_meta_params(flat / "params.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 64}, "says dim 64, but the weights have 32"),
        ({"n_layers": 7}, "says n_layers 7"),
        ({"vocab_size": 500}, "says vocab_size 500"),
        ({"n_heads": 5}, "5 heads"),
    ],
)
def test_params_of_another_llama_are_named(changes: dict[str, int], message: str, tmp_path: Path) -> None:
    shutil.copytree(SET_A / "llama", tmp_path / "llama")
    path = tmp_path / "llama" / "7B" / "params.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        read_meta_llama(find_meta_folder(tmp_path / "llama"))


def test_params_of_the_other_generation_are_doubted(tmp_path: Path) -> None:
    shutil.copytree(SET_A / "llama", tmp_path / "llama")
    path = tmp_path / "llama" / "7B" / "params.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"norm_eps": 1e-5}))
    with pytest.warns(UserWarning, match="norm_eps is 1e-05"):
        read_meta_llama(find_meta_folder(tmp_path / "llama"))


def test_shards_of_different_models_are_refused(tmp_path: Path) -> None:
    shards = find_meta_folder(SET_A / "llama-sharded").shards
    odd = torch.load(shards[1], weights_only=True)
    odd.pop("norm.weight")
    torch.save(odd, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"norm\.weight.*every shard"):
        read_meta_tensors((shards[0], tmp_path / "odd.pth"), tmp_path)
    with pytest.raises(CheckpointError, match="no consolidated"):
        read_meta_tensors((), tmp_path)


def test_rotary_rows_go_from_pairs_to_halves() -> None:
    rows = np.arange(12)  # two heads of six rows: pairs (0,1) (2,3) (4,5)
    assert interleaved_to_halves(rows, 2).tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def test_index_files(tmp_path: Path) -> None:
    data = (SET_A / "knn" / "knn.index").read_bytes()
    path = tmp_path / "knn.index"
    for content, message in ((data[:200], "cut short"), (b"IxF2" + data[4:], "IxF2"), (b"", "0 bytes")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_faiss_flat(path)
