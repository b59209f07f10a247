"""Whole runs at tiny size: they learn, stop and go on bit for bit, and several processes equal one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import mu_llama
from mu_llama.checkpoints.llama_source import read_llama
from mu_llama.checkpoints.open_model import find_parts
from mu_llama.checkpoints.spec import EncoderSpec, ModelSpec
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.model import linears
from mu_llama.model.config import AdapterConfig
from mu_llama.text.prompts import ALPACA
from mu_llama.training.config import TrainConfig
from mu_llama.training.config_file import parse_config
from mu_llama.training.initialization import fresh_adapter
from mu_llama.training.loop import TrainingError
from mu_llama.training.phases import JOINT, PRETRAIN
from mu_llama.training.session import TrainingResult, train
from mu_llama.training.trainable import build_trainable

SET_A = Path(__file__).parents[1] / "golden" / "set_a"


@pytest.fixture(autouse=True)
def forget_precision() -> Iterator[None]:
    """Accelerate keeps the precision of a process's first run."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen tracks, two questions each, and a text-only row."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [{"audio": None, "question": "Is this text?", "answer": "It is text."}]
    for index in range(16):
        time_s = np.arange(24000) / 24000
        sound = np.sin(2 * np.pi * 110 * (index + 1) * time_s) * 0.3 + rng.normal(0, 0.01, time_s.size)
        soundfile.write(folder / f"{index}.wav", sound.astype(np.float32), 24000)
        for question in ("What is it?", "Describe the audio"):
            rows.append({"audio": f"{index}.wav", "question": question, "answer": f"Tone {index}, {len(question)}."})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "data.jsonl"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def settings(data: Path, out: Path, *changes: str, phase: str = "finetune") -> dict[str, Any]:
    base = {"base": str(SET_A / "checkpoint_finetune.pth"), "llama": str(SET_A / "llama")}
    return {
        "name": "tiny",
        "phase": phase,
        "model": base | {"encoder": {"kind": "mert", "path": str(SET_A / "mert")}},
        "data": {"train": [{"path": str(data)}], "validation_fraction": 0.25, "max_tokens": 160},
        "optimiser": {"lr": 1e-3, "weight_decay": 0.0},
        "schedule": {"steps": 8, "warmup_steps": 1},
        "batch": {"size": 2, "accumulate": 2},
        "precision": {"dtype": "fp32"},
        "run": {"out": str(out), "save_every_steps": 2, "validate_every_steps": 4},
    }


def config(data: Path, out: Path, *changes: str, phase: str = "finetune") -> TrainConfig:
    return parse_config(settings(data, out, phase=phase), changes)


def run(data: Path, out: Path, home: Path, *changes: str, phase: str = "finetune") -> TrainingResult:
    return train(config(data, out, *changes, phase=phase), home=home)


def losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def trained(out: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(out / name / "adapter.safetensors") | load_file(out / name / "lora.safetensors")


@pytest.mark.parametrize("phase", ["pretrain", "finetune", "joint", "lora"])
def test_a_run_leaves_a_model_that_opens(phase: str, data: Path, home: Path, tmp_path: Path) -> None:
    result = run(data, tmp_path / "run", home, phase=phase)
    assert result.updates == 8
    assert result.best_validation_loss is not None
    listener = mu_llama.load(result.model, dtype="fp32", use_cache=False)
    assert listener.ask(data.parent / "1.wav", "What is it?").model == "tiny"
    card = (result.model / "MODEL_CARD.md").read_text()
    assert "## Training" in card
    assert "best_validation_loss" in card
    assert ("`llama/`" in card) == (result.model / "llama").is_dir()
    assert ("`encoder`" in card) == (result.model / "encoder").is_dir()
    assert (tmp_path / "run" / "loss.png").stat().st_size > 5000
    assert len(list((tmp_path / "run" / "checkpoints").glob("update-*"))) == 2, "keep_last"


def test_the_model_learns_what_it_is_shown(data: Path, home: Path, tmp_path: Path) -> None:
    """The overfit check: 33 examples to a loss below 0.05; the joint phase can't sharpen so small a LLaMA's logits."""
    changes = ["schedule.steps=160", "optimiser.lr=1e-2", "optimiser.clip_norm=1.0", "batch.size=33"]
    changes += ["batch.accumulate=1", "data.validation_fraction=null", "run.validate_every_steps=null"]
    result = run(data, tmp_path / "run", home, *changes, "run.save_every_steps=1000")
    assert losses(tmp_path / "run")[0] > 3
    assert losses(tmp_path / "run")[-1] < 0.05
    listener = mu_llama.load(result.model, dtype="fp32", use_cache=False)
    assert listener.ask(data.parent / "3.wav", "What is it?").text == "Tone 3, 11."
    assert listener.ask(data.parent / "6.wav", "Describe the audio").text == "Tone 6, 18."


def test_a_finished_run_is_left_alone(data: Path, home: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path / "run", home)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert run(data, tmp_path / "run", home) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == stamps
    with pytest.raises(ConfigError, match=r"optimiser\.lr: 0\.001 before, 0\.002 now"):
        run(data, tmp_path / "run", home, "optimiser.lr=2e-3")


class Stop(BaseException):
    """Stands for a kill at an update."""


class Stopping:
    """Raises after an update."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_start(self, *_: object) -> None: ...

    def on_validation(self, *_: object) -> None: ...

    def on_samples(self, *_: object) -> None: ...

    def on_step(self, step: Any) -> None:
        if step.update == self.after:
            raise Stop


@pytest.mark.parametrize("after", [1, 2, 5, 8])
def test_a_stopped_run_ends_as_if_it_was_not(after: int, data: Path, home: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "whole", home)
    with pytest.raises(Stop):
        train(config(data, tmp_path / "run"), home=home, callback=Stopping(after))
    run(data, tmp_path / "run", home)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    one, other = trained(tmp_path / "run"), trained(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)


def as_yaml(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "MU_LLAMA_HOME": str(home), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killed_and_started_again(data: Path, home: Path, tmp_path: Path) -> None:
    """A real kill -9 in the middle, through the command."""
    changes = ["--set", "schedule.steps=30", "--set", "run.validate_every_steps=30"]
    line = [sys.executable, "-m", "mu_llama.training", *changes, "--config"]
    whole = as_yaml(tmp_path / "whole.yaml", settings(data, tmp_path / "whole"))
    subprocess.run([*line, str(whole)], env=environment(home), check=True, capture_output=True)
    own = as_yaml(tmp_path / "run.yaml", settings(data, tmp_path / "run"))
    process = subprocess.Popen([*line, str(own)], env=environment(home), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "checkpoints").glob("update-*4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "model").exists(), "it was to be killed before its end"
    subprocess.run([*line, str(own)], env=environment(home), check=True, capture_output=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    one, other = trained(tmp_path / "run"), trained(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_two_processes_equal_one_with_twice_the_accumulation(data: Path, home: Path, tmp_path: Path) -> None:
    alone = settings(data, tmp_path / "one")
    run_alone = parse_config(alone, ["batch.accumulate=4"])
    train(run_alone, home=home)
    pair = as_yaml(tmp_path / "two.yaml", settings(data, tmp_path / "two"))
    # accelerate's launcher starts several CPU processes only through MPI; torch's starts them with gloo.
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    line += ["-m", "mu_llama.training", "--config", str(pair)]
    own = environment(home) | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(line, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "two" / "run.json").read_text())["counts"]["processes"] == 2
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-5)
    one, two = trained(tmp_path / "one"), trained(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


@pytest.mark.parametrize("wrap", [pytest.param("NO_WRAP", marks=pytest.mark.slow), "TRANSFORMER_BASED_WRAP"])
def test_weights_spread_over_two_processes_train_the_same(wrap: str, data: Path, home: Path, tmp_path: Path) -> None:
    """FSDP, stopped and going on: the same losses, the same model, and sample answers on the way."""
    train(config(data, tmp_path / "one", "batch.accumulate=4", phase="joint"), home=home)
    pair = as_yaml(tmp_path / "two.yaml", settings(data, tmp_path / "two", phase="joint"))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    own = environment(home) | {
        "ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": wrap, "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    for stop_after in ("5", "0"):
        options = [stop_after, "--config", str(pair), "--set", "run.sample_every_steps=4"]
        command = [*line, "-m", "tests.training.fsdp_on_cpu", *options]
        done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (stop_after == "0"), done.stderr[-3000:]
        assert (tmp_path / "two" / "model").exists() == (stop_after == "0")
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-5)
    one, two = trained(tmp_path / "one"), trained(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    samples = [json.loads(line) for line in (tmp_path / "two" / "samples.jsonl").read_text().splitlines()]
    assert [row["update"] for row in samples] == [4, 4, 8, 8]


def test_a_loss_that_is_no_number_stops_with_the_ids(
    data: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mu_llama.training import collate as loss

    monkeypatch.setattr(loss, "answer_loss", lambda model, batch: torch.tensor(torch.nan, requires_grad=True))
    with pytest.raises(TrainingError, match="the loss or gradient of update 1 is nan"):
        run(data, tmp_path / "run", home)
    written = json.loads((tmp_path / "run" / "not-finite.jsonl").read_text())
    assert len(written["ids"]) == 4


def test_a_full_disk_keeps_the_checkpoint_before(
    data: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stop):
        train(config(data, tmp_path / "run"), home=home, callback=Stopping(3))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match=r"No space left.*checkpoints before it"):
            run(data, tmp_path / "run", home)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("*update*")] == ["update-00000002"]
    run(data, tmp_path / "whole", home)
    run(data, tmp_path / "run", home)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_early_stop_exports_the_best(data: Path, home: Path, tmp_path: Path) -> None:
    changes = ["optimiser.lr=1.0", "run.validate_every_steps=1", "run.early_stop_patience=2", "schedule.steps=40"]
    result = run(data, tmp_path / "run", home, *changes)
    assert result.updates < 40
    best = json.loads((tmp_path / "run" / "run.json").read_text())["result"]["best_update"]
    assert best < result.updates
    saved = load_file(tmp_path / "run" / "checkpoints" / "best" / "trained.safetensors")
    exported = trained(tmp_path / "run")
    name = "model.norm.weight"
    assert torch.equal(exported[name], saved[f"llama.{name}"])


def test_other_weights_are_refused(data: Path, home: Path, tmp_path: Path) -> None:
    for phase, name in (("finetune", "run"), ("pretrain", "other")):
        with pytest.raises(Stop):
            train(config(data, tmp_path / name, phase=phase), home=home, callback=Stopping(3))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "run" / "checkpoints")
    with pytest.raises(ConfigError, match="another phase or architecture; differs in"):
        run(data, tmp_path / "run", home)


def test_a_run_killed_after_its_early_stop_ends_the_same(
    data: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mu_llama.training import session

    changes = ["optimiser.lr=1.0", "run.validate_every_steps=1", "run.early_stop_patience=2", "schedule.steps=40"]
    whole = run(data, tmp_path / "whole", home, *changes)

    def die(*_: object, **__: object) -> None:
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(session, "export_model", die)
        with pytest.raises(Stop):
            run(data, tmp_path / "run", home, *changes)
    assert run(data, tmp_path / "run", home, *changes).updates == whole.updates < 40
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    one, other = trained(tmp_path / "run"), trained(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_changed_data_stops_a_run_from_going_on(data: Path, home: Path, tmp_path: Path) -> None:
    shutil.copytree(data.parent, tmp_path / "data")
    own = tmp_path / "data" / data.name
    with pytest.raises(Stop):
        train(config(own, tmp_path / "run"), home=home, callback=Stopping(3))
    own.write_text(own.read_text().replace("Tone 3", "Tone three"))
    with pytest.raises(ConfigError, match=r"(?s)other settings or data.*data\..*before"):
        run(own, tmp_path / "run", home)


def test_a_start_that_failed_does_not_lock_its_folder(data: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss or gradient of update"):
        run(data, tmp_path / "run", home, "optimiser.lr=1e30", "run.validate_every_steps=8", "run.save_every_steps=8")
    assert run(data, tmp_path / "run", home).updates == 8


@pytest.mark.parametrize("name", ["model", "metrics.jsonl"])
def test_a_folder_that_is_no_runs_is_left_alone(name: str, data: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("precious")
    with pytest.raises(ConfigError, match=f"is not the folder of a run, but holds {name}"):
        run(data, tmp_path / "mine", home)
    assert (tmp_path / "mine" / name).read_text() == "precious"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["schedule={epochs: 2}", "batch.accumulate=32"], "too few for an update of 32 x 2 rows"),
        (["schedule={steps: 6, split_epoch: 50}"], "too few for an update"),
        (["precision.dtype=fp16"], "fp16, which needs a GPU"),
        (["run.trackers=[comet_ml]"], "comet_ml, which isn't installed; run: pip install comet_ml"),
        (["optimiser={base_lr: 1e-4}", "schedule.min_lr=1e-3"], "expected at most the peak rate"),
        (["batch.max_tokens=200", "batch.bucketed=false"], "fills batches by length only with batch.bucketed"),
        (["model.encoder={kind: [mert]}"], "expected one of"),
    ],
)
def test_what_can_not_work_is_said_in_one_line(
    changes: list[str], message: str, data: Path, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(data, tmp_path / "run", home, *changes)
    assert not (tmp_path / "run" / "model").exists()


def test_the_launcher_says_what_is_cut(data: Path, home: Path, tmp_path: Path) -> None:
    path = as_yaml(tmp_path / "run.yaml", settings(data, tmp_path / "run"))
    line = [sys.executable, "-m", "mu_llama.training", "--config", str(path), "--set", "data.max_tokens=60"]
    line += ["--set", "precision.dtype=bf16"]
    done = subprocess.run(line, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cut at max tokens" in done.stderr
    assert ("bf16 is slow" in done.stderr) == linears.SLOW_BF16
    assert "memory: " in done.stderr
    assert "update 8/8: loss" in done.stderr
    assert "gemm" not in done.stderr


@pytest.fixture(scope="module")
def wider_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA of the golden vocabulary whose widths 4-bit kernels take."""
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=480, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copy(SET_A / "llama" / "tokenizer.model", folder)
    return folder


def test_a_frozen_llama_in_four_bits(wider_llama: Path, data: Path, home: Path, tmp_path: Path) -> None:
    """QLoRA: the base is quantized, LoRA and adapter learn, and what is exported is not quantized."""
    content = settings(data, tmp_path / "run", phase="joint")
    content["model"] = {"llama": str(wider_llama), "encoder": content["model"]["encoder"]}
    content["model"]["fresh"] = {"num_conditioned_layers": 2, "input_scaling": "standardise"}
    changes = ["precision.nf4_base=true", "precision.dtype=bf16", "schedule.steps=40", "optimiser.lr=1e-2"]
    result = train(parse_config(content, [*changes, "run.validate_every_steps=40"]), home=home)
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < np.mean(found[:3]) - 0.5
    assert trained(tmp_path / "run")["model.layers.0.mlp.up_proj.lora_B.weight"].abs().max() > 0.01
    assert {value.dtype for value in trained(tmp_path / "run").values()} == {torch.float32}
    assert mu_llama.load(result.model, use_cache=False).ask(data.parent / "1.wav", "What is it?").num_tokens > 0


def test_the_base_really_is_quantized(wider_llama: Path) -> None:
    llama = read_llama(wider_llama)
    sizes = AdapterConfig(5, 24, 64, num_conditioned_layers=2, num_heads=4, bridge_width=64)
    adapter = fresh_adapter(sizes, seed=0)
    encoder = EncoderSpec({"kind": "mert"})
    parts = ModelSpec("x", llama, {}, sizes, adapter, ALPACA, encoder, source="x")
    for phase in (JOINT, PRETRAIN):
        model = build_trainable(parts, phase=phase, dtype=torch.bfloat16, nf4_base=True)
        assert {type(projection).__name__ for projection in model.value_projections()} == {"Linear4bit"}
        assert all("base_layer" not in name for name, value in model.named_parameters() if value.requires_grad)
    tiny = find_parts(
        SET_A / "checkpoint_pretrain.pth", llama=SET_A / "llama", encoder=SET_A / "mert", home=wider_llama
    )
    with pytest.raises(ConfigError, match="nf4_base finds no frozen linear"):
        build_trainable(tiny, phase=JOINT, dtype=torch.bfloat16, nf4_base=True)


def test_trackers_and_activation_checkpointing(data: Path, home: Path, tmp_path: Path) -> None:
    changes = ["run.trackers=[tensorboard]", "precision.activation_checkpointing=true", "precision.dtype=bf16"]
    run(data, tmp_path / "run", home, *changes)
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_tracks_can_be_heard_anew_and_changed_each_time(data: Path, home: Path, tmp_path: Path) -> None:
    """Live encoding without augmentation equals the table; with it, it doesn't, and a stopped run still ends equal."""
    changes = ["schedule.steps=4", "run.validate_every_steps=4"]
    run(data, tmp_path / "table", home, *changes, phase="pretrain")
    run(data, tmp_path / "live", home, *changes, "data.encode=live", phase="pretrain")
    np.testing.assert_allclose(losses(tmp_path / "live"), losses(tmp_path / "table"), atol=1e-5)
    changes += ["data.encode=live", "data.augment=[level, equaliser, noise, phone]"]
    run(data, tmp_path / "changed", home, *changes, phase="pretrain")
    assert np.abs(np.subtract(losses(tmp_path / "changed"), losses(tmp_path / "table"))).max() > 1e-4
    with pytest.raises(Stop):
        train(config(data, tmp_path / "again", *changes, phase="pretrain"), home=home, callback=Stopping(3))
    run(data, tmp_path / "again", home, *changes, phase="pretrain")
    assert losses(tmp_path / "again") == losses(tmp_path / "changed")


@pytest.mark.slow
def test_compiled_equals_plain(data: Path, home: Path, tmp_path: Path) -> None:
    changes = ["schedule.steps=3", "run.validate_every_steps=3"]
    run(data, tmp_path / "plain", home, *changes)
    result = run(data, tmp_path / "compiled", home, *changes, "precision.compile=true")
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), atol=1e-4)
    assert mu_llama.load(result.model, use_cache=False).ask(data.parent / "1.wav", "What is it?").num_tokens > 0


def test_missing_audio_stops_before_training_unless_it_may_be_skipped(data: Path, home: Path, tmp_path: Path) -> None:
    """Through the command."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows = [row | {"audio": row["audio"] and str(data.parent / row["audio"])} for row in rows]
    rows += [{"audio": f"gone-{n}.wav", "question": "Q?", "answer": "A."} for n in range(3)]
    own = tmp_path / "data.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = as_yaml(tmp_path / "run.yaml", settings(own, tmp_path / "run"))
    line = [sys.executable, "-c", "from mu_llama.cli.main import app; app()", "train", "--config", str(path)]
    line += ["--set", "schedule.steps=2"]
    done = subprocess.run(line, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "3 missing audio files" in done.stderr
    assert "gone-2.wav" in done.stderr
    assert not (tmp_path / "run").exists()
    done = subprocess.run(
        [*line, "--skip-missing", "--json"], env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3 missing audio" in done.stderr
    assert json.loads(done.stdout)["updates"] == 2


def test_accelerates_launcher_starts_it(data: Path, home: Path, tmp_path: Path) -> None:
    path = as_yaml(tmp_path / "run.yaml", settings(data, tmp_path / "run"))
    line = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "-m", "mu_llama.training"]
    done = subprocess.run(
        [*line, "--config", str(path)], env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_mistakes_of_a_config_come_all_at_once(data: Path, home: Path, tmp_path: Path) -> None:
    content = settings(data, tmp_path / "run")
    content["optimizer"] = content.pop("optimiser")
    content["batch"]["sise"] = 3
    path = as_yaml(tmp_path / "bad.yaml", content)
    line = [sys.executable, "-m", "mu_llama.training", "--config", str(path)]
    done = subprocess.run(line, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "optimiser" in done.stderr
    assert "batch.sise" in done.stderr
    assert "size" in done.stderr
