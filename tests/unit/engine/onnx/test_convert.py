"""Model folders with an onnx graph: the same answers, without torch and onnx, and one line where one is damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import mu_llama
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.convert import ConvertOptions, convert_to_folder, convert_to_gguf
from mu_llama.checkpoints.detect import detect, scan_tree
from mu_llama.checkpoints.formats.tensor_files import read_safetensors
from mu_llama.checkpoints.lazy_tensor import in_memory
from mu_llama.checkpoints.load import find_parts
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.cli.main import typer_app
from mu_llama.engine.onnx import convert
from mu_llama.engine.onnx.convert import chosen_precision, convert_to_onnx
from mu_llama.engine.onnx.description import Precision
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.onnx.load import graph_options
from mu_llama.engine.onnx.store import write_graph
from mu_llama.errors import CheckpointError, ConfigError, MuLlamaError

SET_A = Path(__file__).parents[3] / "golden" / "set_a"
FINETUNED = SET_A / "checkpoint_finetune.pth"
CLIP = Path(__file__).parents[4] / "examples" / "audio" / "midnight-dance-cello.ogg"
OPTIONS = mu_llama.GenerationOptions(max_new_tokens=12)
QUESTIONS = ["What is this?", "Is there singing?"]


def parts_of(name: str = FINETUNED.name) -> ModelSpec:
    return find_parts(SET_A / name, llama=SET_A / "llama", encoder=SET_A / "mert", home=Path("unused"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert_to_onnx(parts_of(), folder, ConvertOptions(dtype="fp32"))
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Moved away from where it was written, and so opened at another place."""
    return Path(shutil.copytree(original, tmp_path / "moved" / "here"))


def answers(listener: mu_llama.Listener, audio: Path = SET_A / "audio_short.wav") -> list[str]:
    track = listener.listen(audio, duration_s=5.0)
    return [listener.ask(track, question, options=OPTIONS).text for question in QUESTIONS]


def open_folder(folder: Path, **settings: Any) -> mu_llama.Listener:
    return mu_llama.load(folder, use_cache=False, **settings)


def test_a_published_checkpoint_gives_the_same_answers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MU_LLAMA_HOME", str(tmp_path / "home"))
    torch = mu_llama.load(
        FINETUNED, llama=SET_A / "llama", encoder=SET_A / "mert", use_cache=False, engine="torch", dtype="fp32"
    )
    converted = open_folder(folder)
    features = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)
    np.testing.assert_allclose(
        converted.opened.engine.condition(features), torch.opened.engine.condition(features), atol=2e-5, rtol=1e-4
    )
    assert answers(converted) == answers(torch)
    assert isinstance(converted.opened.engine, OnnxEngine)
    assert not (tmp_path / "home" / "graphs").exists(), "the graph is opened in place"


def test_the_graph_is_that_of_the_cache(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MU_LLAMA_HOME", str(tmp_path))
    listener = mu_llama.load(
        FINETUNED, llama=SET_A / "llama", encoder=SET_A / "mert", use_cache=False, engine="onnx", dtype="fp32"
    )
    assert isinstance(listener.opened.engine, OnnxEngine)
    (cached,) = (path for path in (tmp_path / "graphs").iterdir() if path.is_dir())
    names = {path.name for path in cached.iterdir()}
    assert names == {path.name for path in (original / "graph").iterdir()}
    for name in names - {"manifest.json"}:
        assert (cached / name).read_bytes() == (original / "graph" / name).read_bytes()


def test_mini_in_int8_gives_the_same_answers(tmp_path: Path) -> None:
    parts = find_parts("mini", home=home_folder())
    assert chosen_precision(parts, ConvertOptions()) == "int8"
    convert_to_onnx(parts, tmp_path / "mini", ConvertOptions())
    assert not (tmp_path / "mini" / "lora.safetensors").exists()
    code = f"""
import sys
for name in ('torch', 'transformers', 'onnx'):
    sys.modules[name] = None
import json, mu_llama
listener = mu_llama.load({str(tmp_path / "mini")!r}, use_cache=False)
track = listener.listen({str(CLIP)!r}, duration_s=5.0)
options = mu_llama.GenerationOptions(max_new_tokens={OPTIONS.max_new_tokens})
print(json.dumps([listener.ask(track, question, options=options).text for question in {QUESTIONS!r}]))
"""
    environment = {**os.environ, "MU_LLAMA_HOME": str(tmp_path / "empty")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == answers(mu_llama.load("mini", use_cache=False), CLIP)


def test_only_the_encoder_of_a_published_model_needs_torch(folder: Path) -> None:
    code = f"""
import sys
for name in ('torch', 'transformers', 'onnx'):
    sys.modules[name] = None
import numpy as np, mu_llama
from mu_llama.errors import MuLlamaError
listener = mu_llama.load({str(folder)!r}, use_cache=False)
print(listener.opened.engine.condition(np.ones((5, 24), np.float32)).shape)
try:
    listener.listen({str(SET_A / "audio_short.wav")!r})
except MuLlamaError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shape, error = done.stdout.splitlines()
    assert shape == "(4, 32)"
    assert "pip install 'mu-llama[torch]'" in error


def test_what_it_is(folder: Path) -> None:
    (found,) = scan_tree(folder)
    assert found.kind == "mu-llama folder"
    assert "LLaMA as an onnx graph in fp32" in found.note
    graph = detect(folder / "graph")
    assert (graph.kind, graph.note) == ("onnx graph", "6 layers of width 32, fp32")
    assert "| `graph/`, sizes and tokenizer in `llama/` | 6 layers of width 32, dtype fp32, an onnx graph" in (
        (folder / "MODEL_CARD.md").read_text()
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["llama"] == {"folder": "llama", "graph": "graph"}
    assert config["licences"]["MERT"] == "CC-BY-NC-4.0"


@pytest.mark.parametrize("inside", ["graph", "graph/model.onnx"])
def test_a_graph_without_its_folder_is_named(inside: str, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"graph of a LLaMA") as caught:
        open_folder(folder / inside)
    assert f"--model {folder}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"engine": "torch"}, "--engine torch"),
        ({"device": "cuda"}, "--device cuda"),
        ({"dtype": "bf16"}, "--dtype bf16"),
        ({"quantize": "int4"}, "--quantize int4"),
        ({"device_map": "auto", "engine": "torch"}, "--engine torch, --device-map auto"),
    ],
)
def test_what_a_graph_cannot_do_is_one_line(settings: dict[str, Any], named: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="an onnx graph in fp32, which onnxruntime runs as it is") as caught:
        open_folder(folder, **settings)
    assert f"leave out {named}, or give the model that it was converted from" in str(caught.value)


def test_its_own_precision_may_be_asked_for(folder: Path) -> None:
    open_folder(folder, engine="onnx", device="cpu", dtype="fp32")


def _cut(graph: Path) -> None:
    with (graph / "weights.bin").open("rb+") as file:
        file.truncate(5000)


def _change(graph: Path) -> None:
    content = bytearray((graph / "weights.bin").read_bytes())
    content[100] ^= 1
    (graph / "weights.bin").write_bytes(content)


def _lose(name: str) -> Callable[[Path], None]:
    return lambda graph: (graph / name).unlink()


def _point(graph: Path) -> None:
    (graph / "weights.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _other_sizes(graph: Path) -> None:
    path = graph.parent / "llama" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 7}))


def _newer(graph: Path) -> None:
    for name in ("graph.json", "manifest.json"):
        path = graph / name
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "weights.bin not as it was written"),
        (_change, "weights.bin not as it was written"),
        (_lose("weights.bin"), "weights.bin missing"),
        (_lose("manifest.json"), "manifest.json missing"),
        (_lose("graph.json"), "graph.json missing"),
        (_point, "Git LFS pointer"),
        (_other_sizes, r"layers 6 \(expected 7\)"),
        (_newer, "version is 99, expected 1 to"),
        (shutil.rmtree, "model.onnx, weights.bin, graph.json, manifest.json missing"),
    ],
)
def test_a_damaged_folder_is_one_line(damage: Callable[[Path], None], words: str, folder: Path) -> None:
    damage(folder / "graph")
    with pytest.raises(MuLlamaError, match=words) as caught:
        _ = open_folder(folder).opened.engine
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [convert_to_folder, convert_to_gguf, convert_to_onnx])
def test_it_is_no_source_of_weights(write: Callable[..., None], folder: Path, tmp_path: Path) -> None:
    parts = find_parts(folder, home=tmp_path)
    with pytest.raises(CheckpointError, match="expected a LLaMA's own weights: give the model that it was converted"):
        write(parts, tmp_path / "again", ConvertOptions())
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("width", "options", "expected"),
    [
        (576, ConvertOptions(), "int8"),
        (4096, ConvertOptions(), "int4"),
        (4096, ConvertOptions(quantize="int8"), "int8"),
        (4096, ConvertOptions(dtype="fp32"), "fp32"),
        (576, ConvertOptions(dtype="bf16"), "fp32, int8 or int4, not bf16"),
        (576, ConvertOptions(dtype="fp32", quantize="int8"), "--dtype fp32 contradicts --quantize int8"),
    ],
)
def test_precision(width: int, options: ConvertOptions, expected: str) -> None:
    parts = parts_of()
    config = replace(parts.llama.config, hidden_size=width)
    parts = replace(parts, llama=replace(parts.llama, config=config))
    if " " not in expected:
        assert chosen_precision(parts, options) == expected
        return
    with pytest.raises(ConfigError, match=expected):
        chosen_precision(parts, options)


def test_int4_has_zero_points_in_small_llamas_alone() -> None:
    small = parts_of()
    wide = replace(small, llama=replace(small.llama, config=replace(small.llama.config, hidden_size=4096)))
    assert [graph_options(parts, "int4").symmetric for parts in (small, wide)] == [False, True]
    assert [graph_options(parts, "int8").symmetric for parts in (small, wide)] == [True, True]


def test_the_bridge_is_narrow_beside_int4(original: Path, tmp_path: Path) -> None:
    convert_to_onnx(parts_of(), tmp_path / "model", ConvertOptions(quantize="int4"))
    for folder, dtype in ((tmp_path / "model", "bfloat16"), (original, "float32")):
        adapter = read_safetensors(folder / "adapter.safetensors")
        assert adapter["adapter.blocks.0.up.weight"].dtype.name == dtype
        assert adapter["conditioner.value_lora_A"].dtype.name == "float32"
    assert answers(open_folder(tmp_path / "model"))[0]


@pytest.mark.parametrize("write", [convert_to_folder, convert_to_gguf])
def test_other_targets_take_no_bits(write: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--quantize int8 is for an onnx graph"):
        write(parts_of(), tmp_path / "model", ConvertOptions(quantize="int8"))


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "write_model_files", fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        convert_to_onnx(parts_of(), tmp_path / "model", ConvertOptions())
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_was_whole_at_a_kill_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(convert, "write_model_files", stop)
        with pytest.raises(KeyboardInterrupt):
            convert_to_onnx(parts_of(), tmp_path / "model", ConvertOptions())
    assert not (tmp_path / "model").exists()
    times = []

    def write(folder: Path, build: Callable[[Path], object]) -> None:
        before = (folder / "weights.bin").stat().st_mtime_ns
        write_graph(folder, build)
        times.append((before, (folder / "weights.bin").stat().st_mtime_ns))

    monkeypatch.setattr(convert, "write_graph", write)
    convert_to_onnx(parts_of(), tmp_path / "model", ConvertOptions())
    assert times[0][0] == times[0][1]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not list((tmp_path / "model").glob("convert.json"))


def test_too_little_room_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="GB are needed"):
        convert_to_onnx(parts_of(), tmp_path / "model", ConvertOptions())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("precision", "num_bytes"), [("fp32", 4.0), ("int8", 1.25), ("int4", 0.640625)])
def test_the_estimate_of_a_graphs_size(precision: Precision, num_bytes: float) -> None:
    """A weight has 32 bits; 8 and a scale of 16 weights; 4, a scale and a zero point of 32 weights."""
    tensors = {"model.layers.0.mlp.up_proj.weight": in_memory(np.zeros((64, 64), np.float32))}
    assert convert.graph_bytes(tensors, graph_options(parts_of(), precision)) == 64 * 64 * num_bytes


def test_the_command(tmp_path: Path) -> None:
    words = ["convert", str(FINETUNED), str(tmp_path / "model"), "--llama", str(SET_A / "llama")]
    words += ["--encoder", str(SET_A / "mert"), "--to", "onnx"]
    done = CliRunner().invoke(typer_app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert "is written in int8" in done.stderr
    assert "graph/weights.bin" in json.loads(done.stdout)["files"]
    again = CliRunner().invoke(typer_app, [*words, "--quantize", "int3"])
    assert again.exit_code == 2
    assert "--quantize is 'int3'; expected int8, int4" in again.stderr
