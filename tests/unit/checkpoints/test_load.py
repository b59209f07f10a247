"""Opening by whatever a user names: all layouts give one model, and wrong files are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mu_llama
from mu_llama.checkpoints.convert import ConvertOptions, convert_to_folder, convert_to_gguf
from mu_llama.checkpoints.load import find_parts
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.cli.main import typer_app
from mu_llama.engine.torch.device_map import plan_devices
from mu_llama.engine.torch.llama import MuLlama, build_mu_llama
from mu_llama.engine.torch.load import Placement, assemble
from mu_llama.errors import CheckpointError, ConfigError, ModelNotFoundError

SET_A = Path(__file__).parents[2] / "golden" / "set_a"
FULL_STATE, ADAPTER_ONLY = "checkpoint_finetune.pth", "checkpoint_finetune_namespace.pth"
FP32 = Placement(torch.device("cpu"), torch.float32)


def find(model: Path | str, llama: Path | None = SET_A / "llama", encoder: Path | None = SET_A / "mert") -> ModelSpec:
    return find_parts(model, llama=llama, encoder=encoder, home=Path("unused"))


@torch.inference_mode()
def logits(model: MuLlama) -> torch.Tensor:
    features = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(0))
    return model(torch.arange(3, 20)[None], conditioning=model.condition(features))


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    return logits(assemble(find(SET_A / FULL_STATE), FP32))


def as_meta(folder: Path) -> Path:
    return Path(shutil.copytree(SET_A / "llama", folder))


def as_flat_meta(folder: Path) -> Path:
    shutil.copytree(SET_A / "llama" / "7B", folder)
    shutil.copy(SET_A / "llama" / "tokenizer.model", folder)
    return folder


def as_sharded_meta(folder: Path) -> Path:
    return Path(shutil.copytree(SET_A / "llama-sharded", folder))


def as_hugging_face(folder: Path) -> Path:
    """The base LLaMA alone, as transformers writes it."""
    parts = find(SET_A / ADAPTER_ONLY)
    convert_to_folder(parts, folder.with_name("converted"), ConvertOptions())
    shutil.copytree(folder.with_name("converted") / "llama", folder)
    return folder


def as_hugging_face_pickles(folder: Path) -> Path:
    """Shards in older .bin files."""
    from safetensors.torch import load_file

    as_hugging_face(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"pytorch_model-1.bin": names[:30], "pytorch_model-2.bin": names[30:]}
    for file, own in halves.items():
        torch.save({name: tensors[name] for name in own}, folder / file)
    weight_map = {name: file for file, own in halves.items() for name in own}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def as_gguf(folder: Path) -> Path:
    from mu_llama.checkpoints.formats.gguf_writing import write_gguf

    llama = find(SET_A / ADAPTER_ONLY).llama
    folder.mkdir()
    path = folder / "llama.gguf"
    write_gguf(path, llama.config, llama.tensors, llama.tokenizer, name="x", description="x", licence=None)
    return path


@pytest.mark.parametrize(
    "layout", [as_meta, as_flat_meta, as_sharded_meta, as_hugging_face, as_hugging_face_pickles, as_gguf]
)
@pytest.mark.parametrize("checkpoint", [FULL_STATE, ADAPTER_ONLY])
def test_every_layout_of_the_llama_is_the_same_model(
    layout: Callable[[Path], Path], checkpoint: str, expected: torch.Tensor, tmp_path: Path
) -> None:
    llama = layout(tmp_path / "llama")
    assert torch.equal(logits(assemble(find(SET_A / checkpoint, llama), FP32)), expected)


def test_params_are_enough_where_the_checkpoint_holds_the_llama(expected: torch.Tensor, tmp_path: Path) -> None:
    shutil.copy(SET_A / "llama" / "7B" / "params.json", tmp_path)
    shutil.copy(SET_A / "llama" / "tokenizer.model", tmp_path)
    assert torch.equal(logits(assemble(find(SET_A / FULL_STATE, tmp_path / "params.json"), FP32)), expected)
    shutil.copy(SET_A / FULL_STATE, tmp_path / "checkpoint.pth")
    assert torch.equal(logits(assemble(find(tmp_path / "checkpoint.pth", None), FP32)), expected)
    with pytest.raises(ConfigError, match=r"needs the params\.json"):
        find(SET_A / FULL_STATE, None)
    with pytest.raises(CheckpointError, match="no consolidated"):
        find(SET_A / ADAPTER_ONLY, tmp_path / "params.json")


@pytest.fixture
def published_tree(tmp_path: Path) -> Path:
    """What the published README lays out, with the baseline beside it."""
    root = tmp_path / "ckpts"
    root.mkdir()
    shutil.copy(SET_A / FULL_STATE, root / "checkpoint.pth")
    torch.save({"model": {"image_bind_proj.weight": torch.zeros(2, 2)}}, root / "7B.pth")
    shutil.copytree(SET_A / "llama", root / "LLaMA")
    shutil.copytree(SET_A / "mert", root / "MERT")
    shutil.copy(SET_A / "knn" / "knn.index", root / "knn.index")
    return root


def test_the_published_tree_given_as_its_root_alone(published_tree: Path, expected: torch.Tensor) -> None:
    parts = find(published_tree, None, None)
    assert torch.equal(logits(assemble(parts, FP32)), expected)
    assert parts.encoder.spec["path"] == str(published_tree / "MERT")


def test_the_command_line_opens_the_tree_too(published_tree: Path) -> None:
    line = ["ask", str(SET_A / "audio_short.wav"), "-q", "What?", "--dtype", "fp32", "--max-new-tokens", "4"]
    result = CliRunner().invoke(typer_app, [*line, "--no-cache", "--model", str(published_tree)])
    assert result.exit_code == 0, result.output
    (published_tree / "MERT" / "config.json").unlink()
    shutil.copy(published_tree / "checkpoint.pth", published_tree / "other.pth")
    result = CliRunner().invoke(typer_app, [*line, "--model", str(published_tree)])
    assert result.exit_code == 2
    for seen in ("checkpoint.pth", "other.pth", "7B.pth", "LLaMA", "knn.index"):
        assert seen in result.output


def test_hub_ids_through_the_hubs_own_cache(
    published_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network: the hub's library finds in its cache what it would have downloaded."""
    convert_to_folder(find(published_tree, None, None), tmp_path / "model", ConvertOptions(encoder="reference"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["encoder"]["path"] = "someone/mert"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    sources = {"someone/ours": tmp_path / "model", "someone/llama": SET_A / "llama", "someone/mert": SET_A / "mert"}
    for hub_id, source in sources.items():
        repository = tmp_path / "hub" / f"models--{hub_id.replace('/', '--')}"
        shutil.copytree(source, repository / "snapshots" / "abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")
    # What the library makes of HF_HUB_CACHE and HF_HUB_OFFLINE when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ours = mu_llama.load("someone/ours", dtype="fp32", use_cache=False)
    checkpoint = published_tree / "checkpoint.pth"
    beside = mu_llama.load(checkpoint, llama="someone/llama", encoder="someone/mert", dtype="fp32", use_cache=False)
    one, other = (listener.listen(SET_A / "audio_short.wav").conditioning for listener in (ours, beside))
    assert np.array_equal(one, other)
    with pytest.raises(ModelNotFoundError, match="someone/nothing is neither here nor can it be downloaded"):
        mu_llama.load("someone/nothing")


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_answers_stay_near(kind: str, expected: torch.Tensor) -> None:
    placement = Placement(torch.device("cpu"), torch.bfloat16, quantize=kind)  # type: ignore[arg-type]
    model = assemble(find(SET_A / FULL_STATE), placement)
    linear = model.llama.get_submodule("model.layers.0.self_attn.q_proj")
    assert not isinstance(linear, torch.nn.Linear)
    similarity = torch.nn.functional.cosine_similarity(logits(model).flatten(), expected.flatten(), dim=0)
    assert similarity > {"int8": 0.999, "int4": 0.9}[kind]


def test_layers_on_several_devices_compute_the_same(expected: torch.Tensor) -> None:
    """One device under several names: hooks, placing and conditioning run, only nothing moves."""
    table = {"": "cpu"} | {f"model.layers.{layer}": "cpu" for layer in range(6)}
    model = assemble(find(SET_A / FULL_STATE), Placement(torch.device("cpu"), torch.float32, device_map=table))
    assert hasattr(model.llama.get_submodule("model.layers.3"), "_hf_hook")
    assert torch.equal(logits(model), expected)


def test_layers_are_shared_out_whole() -> None:
    parts = find(SET_A / FULL_STATE)
    model = build_mu_llama(parts.llama.config, parts.adapter_config, dtype=torch.float32)
    size = sum(value.numel() * 4 for value in model.llama.parameters())
    plan = plan_devices(model.llama, "auto", max_memory={0: size // 2, 1: size, "cpu": 0})
    assert {str(device) for device in plan.values()} == {"cuda:0", "cuda:1"}
    assert all(name.count(".") <= 2 for name in plan), plan
    with pytest.raises(ConfigError, match="no place for"):
        plan_devices(model.llama, {"model.layers.0": "cpu"})
    with pytest.raises(ConfigError, match="doesn't fit"):
        plan_devices(model.llama, "auto", max_memory={"cpu": size // 10})


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("llama", {}, "--llama"),
        ("llama/7B/consolidated.00.pth", {}, "consolidated.00.pth"),
        ("knn/knn.index", {}, "faiss index"),
        (FULL_STATE, {"llama": "mert"}, "--encoder"),
        (FULL_STATE, {"llama": FULL_STATE}, "--model"),
        (FULL_STATE, {"llama": "llama", "encoder": "llama"}, "--llama"),
        (ADAPTER_ONLY, {"llama": "llama"}, "--encoder"),
        ("nowhere", {}, "no model"),
    ],
)
def test_files_in_the_wrong_role_are_named(model: str, options: dict[str, str], message: str) -> None:
    paths = {name: SET_A / value for name, value in options.items()}
    with pytest.raises((CheckpointError, ConfigError, mu_llama.errors.ModelNotFoundError), match=message):
        find(SET_A / model, paths.get("llama"), paths.get("encoder"))


def test_an_adapter_of_another_width_is_named(tmp_path: Path) -> None:
    content = torch.load(SET_A / ADAPTER_ONLY, weights_only=False)
    content["model"]["mu_mert_proj.weight"] = torch.zeros(64, 24)
    content["args"] = None
    torch.save(content, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match=r"adapter is 64 wide, .*llama/7B is 32"):
        find(tmp_path / "wide.pth")


def test_a_tokenizer_of_another_vocabulary_is_named(tmp_path: Path) -> None:
    from mu_llama.checkpoints.formats.sentencepiece import parse_bpe_model, serialise_bpe_model

    shutil.copytree(SET_A / "llama", tmp_path / "llama")
    path = tmp_path / "llama" / "tokenizer.model"
    model = parse_bpe_model(path.read_bytes(), source="it")
    path.write_bytes(serialise_bpe_model(type(model)(model.pieces[:-1])))
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: 479 tokens, the LLaMA has 480"):
        mu_llama.load(SET_A / FULL_STATE, llama=tmp_path / "llama", encoder=SET_A / "mert")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "norm.weight' missing"),
        (lambda t: t.update({"model.layers.0.self_attn.qproj.weight": torch.zeros(1)}), "nearest known"),
        (lambda t: t.update({"model.norm.weight": torch.zeros(5)}), r"\(5,\)"),
    ],
)
def test_safetensors_with_other_keys_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = as_hugging_face(tmp_path / "llama")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    parts = find(SET_A / "checkpoint_pretrain.pth", folder)
    adapter_only = find(SET_A / ADAPTER_ONLY, folder)
    assert parts.tuning == {}
    del adapter_only.tuning["model.norm.weight"]  # type: ignore[attr-defined]  # so that the file's own is needed
    with pytest.raises(CheckpointError, match=message):
        assemble(adapter_only, FP32)


def test_gguf_from_the_command_line(tmp_path: Path) -> None:
    convert_to_gguf(find(SET_A / FULL_STATE), tmp_path / "a.gguf", ConvertOptions())
    line = ["convert", str(SET_A / FULL_STATE), str(tmp_path / "b.gguf"), "--llama", str(SET_A / "llama")]
    result = CliRunner().invoke(typer_app, [*line, "--encoder", str(SET_A / "mert"), "--to", "gguf", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["size_bytes"] == (tmp_path / "b.gguf").stat().st_size
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
