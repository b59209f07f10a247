"""Converting: what is written is the same model, in one piece or not at all, and transformers reads its LLaMA."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import mu_llama
from mu_llama import hub
from mu_llama.arrays import BFLOAT16, FLOAT32
from mu_llama.checkpoints.convert import ConvertOptions, convert_to_folder, convert_to_gguf
from mu_llama.checkpoints.formats.gguf import read_gguf_llama
from mu_llama.checkpoints.load import find_parts
from mu_llama.checkpoints.lora import merged_llama
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.cli.main import typer_app
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.inference.listener import Listener

SET_A = Path(__file__).parents[2] / "golden" / "set_a"
FULL_STATE, ADAPTER_ONLY = "checkpoint_finetune.pth", "checkpoint_finetune_namespace.pth"


def parts_of(name: str = FULL_STATE) -> ModelSpec:
    return find_parts(SET_A / name, llama=SET_A / "llama", encoder=SET_A / "mert", home=Path("unused"))


def load(folder: Path) -> Listener:
    return mu_llama.load(folder, dtype="fp32", use_cache=False)


@torch.inference_mode()
def logits_of(listener: Listener) -> torch.Tensor:
    features = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(0))
    model = listener.opened.engine.model
    return model(torch.arange(3, 20)[None], conditioning=model.condition(features))


@pytest.fixture(scope="module")
def original() -> Listener:
    return mu_llama.load(
        SET_A / FULL_STATE, llama=SET_A / "llama", encoder=SET_A / "mert", dtype="fp32", use_cache=False
    )


@pytest.mark.parametrize("name", [FULL_STATE, ADAPTER_ONLY])
def test_a_converted_model_is_the_same_bit_for_bit(name: str, original: Listener, tmp_path: Path) -> None:
    convert_to_folder(parts_of(name), tmp_path / "model", ConvertOptions())
    opened = load(tmp_path / "model")
    assert torch.equal(logits_of(opened), logits_of(original))
    state, expected = opened.opened.engine.model.state_dict(), original.opened.engine.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    audio = SET_A / "audio_short.wav"
    assert np.array_equal(opened.listen(audio).conditioning, original.listen(audio).conditioning)
    assert not list(tmp_path.glob(".*")), "nothing stays beside it"


def test_merged_in_fp32_is_the_same_model(original: Listener, tmp_path: Path) -> None:
    convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions(merge=True, dtype="fp32"))
    assert not (tmp_path / "model" / "lora.safetensors").exists()
    torch.testing.assert_close(logits_of(load(tmp_path / "model")), logits_of(original), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_transformers_opens_the_llama(original: Listener, tmp_path: Path) -> None:
    """Its own loader, on the merged LLaMA, gives the reference's logits without audio."""
    convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions(merge=True, dtype="fp32"))
    llama = AutoModelForCausalLM.from_pretrained(tmp_path / "model", subfolder="llama", dtype=torch.float32)
    golden = json.loads((SET_A / "expected.json").read_text())
    expected = load_file(SET_A / "expected.safetensors")["infer/finetune/no_audio/p0/last8_logits"]
    logits = llama(torch.tensor([golden["prompts"][0]["ids"]])).logits[0, -8:]
    torch.testing.assert_close(logits, expected.reshape(logits.shape), atol=3e-4, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model" / "llama")
    for case in golden["prompts"]:
        assert tokenizer(case["text"]).input_ids == case["ids"]


def test_dtype_is_that_of_the_llama_and_the_bridge(tmp_path: Path) -> None:
    convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions(dtype="bf16"))
    assert {value.dtype for value in load_file(tmp_path / "model/llama/model.safetensors").values()} == {torch.bfloat16}
    adapter = load_file(tmp_path / "model" / "adapter.safetensors")
    assert adapter["adapter.blocks.0.up.weight"].dtype == torch.bfloat16
    assert adapter["conditioner.gate"].dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bf16", "bfloat16", BFLOAT16, BFLOAT16.type, torch.bfloat16])
def test_a_dtype_may_be_given_in_any_spelling(dtype: Any) -> None:
    assert ConvertOptions(dtype=dtype).stored_dtype == BFLOAT16


@pytest.mark.parametrize("dtype", ["int8", "fp8", torch.int64])
def test_an_unknown_dtype_is_refused(dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is unknown; expected bf16, fp16, fp32"):
        convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions(dtype=dtype))
    assert list(tmp_path.iterdir()) == []


def test_the_card_names_every_source_with_its_hash(tmp_path: Path) -> None:
    convert_to_folder(parts_of(ADAPTER_ONLY), tmp_path / "model", ConvertOptions())
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    for source in (SET_A / ADAPTER_ONLY, SET_A / "llama/7B/consolidated.00.pth", SET_A / "mert/pytorch_model.bin"):
        assert f"| {source.stat().st_size} | `{hashlib.sha256(source.read_bytes()).hexdigest()}` |" in card
    assert "CC-BY-NC-4.0" in card


def test_the_encoder_can_be_named_instead_of_copied(tmp_path: Path) -> None:
    convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions(encoder="reference"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["encoder"] == {"kind": "mert", "path": str(SET_A / "mert")}
    assert not (tmp_path / "model" / "encoder").exists()
    assert load(tmp_path / "model").listen(SET_A / "audio_short.wav").conditioning.shape == (1, 4, 32)[1:]


def test_the_checkpoints_own_encoder_is_written_out(original: Listener, tmp_path: Path) -> None:
    described = tmp_path / "described"
    described.mkdir()
    shutil.copy(SET_A / "mert" / "config.json", described)
    parts = find_parts(SET_A / FULL_STATE, llama=SET_A / "llama", encoder=described, home=tmp_path)
    assert parts.encoder.tensors
    convert_to_folder(parts, tmp_path / "model", ConvertOptions())
    audio = SET_A / "audio_short.wav"
    expected = original.listen(audio).conditioning
    np.testing.assert_allclose(load(tmp_path / "model").listen(audio).conditioning, expected, rtol=1e-5, atol=1e-6)


class Stop(BaseException):
    """Stands for a kill: nothing gets to clean up."""


def stopping_after(count: int, error: BaseException) -> Callable[[str, int], Callable[[int], None]]:
    """A progress callback that raises once so many tensors have been written."""
    left = [count]

    def advance(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    return lambda label, total: advance if label == "writing" else (lambda _: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", [0, 20, 70, 100])
def test_a_stopped_conversion_goes_on(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mu_llama.checkpoints.formats.hugging_face.SHARD_BYTES", 30_000)
    convert_to_folder(parts_of(), tmp_path / "whole", ConvertOptions())
    with pytest.raises(Stop):
        convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions(), progress=stopping_after(count, Stop()))
    assert not (tmp_path / "model").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / ".model.partial" / "llama").glob("*.safetensors")}
    convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions())
    assert contents(tmp_path / "model") == contents(tmp_path / "whole")
    for path, time_ns in kept.items():
        assert (tmp_path / "model" / "llama" / path.name).stat().st_mtime_ns == time_ns, "was written again"
    assert not list(tmp_path.glob(".*"))


def test_what_was_begun_otherwise_is_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions(), progress=stopping_after(60, Stop()))
    other = ConvertOptions(merge=True, dtype="fp32")
    convert_to_folder(parts_of(), tmp_path / "model", other)
    assert not (tmp_path / "model" / "lora.safetensors").exists()


@pytest.mark.parametrize("write", [convert_to_folder, convert_to_gguf])
def test_a_full_disk_leaves_nothing(write: Callable[..., None], tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(CheckpointError, match=r"No space left on device.*free space"):
        write(parts_of(), tmp_path / "model", ConvertOptions(), progress=stopping_after(9, full))
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"GB are free.*--dtype bf16"):
        convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions())
    assert (tmp_path / "model" / "mine.txt").read_text() == "mine"
    convert_to_folder(parts_of(), tmp_path / "model", ConvertOptions(overwrite=True))
    assert not (tmp_path / "model" / "mine.txt").exists()


def test_gguf_holds_the_merged_llama(tmp_path: Path) -> None:
    parts = parts_of()
    convert_to_gguf(parts, tmp_path / "llama.gguf", ConvertOptions(dtype="fp32"))
    llama = read_gguf_llama(tmp_path / "llama.gguf")
    _, expected = merged_llama(parts.llama, parts.tuning, dtype=FLOAT32, source="test")
    assert all(np.array_equal(llama.tensors[name].read(), stored.read()) for name, stored in expected.items())


def test_saved_and_opened_again(original: Listener, tmp_path: Path) -> None:
    original.save_pretrained(tmp_path / "model")
    opened = Listener.from_pretrained(tmp_path / "model", dtype="fp32", use_cache=False)
    assert torch.equal(logits_of(opened), logits_of(original))


def test_pushed_to_the_hub(original: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class LocalHub:
        """Keeps repositories as folders."""

        def create_repo(self, hub_id: str, *, private: bool, exist_ok: bool) -> None:
            assert private
            assert exist_ok
            (tmp_path / hub_id).mkdir(parents=True)

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> str:
            shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
            return f"local:{repo_id} ({commit_message})"

    monkeypatch.setattr("huggingface_hub.HfApi", LocalHub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda hub_id, **_: tmp_path / hub_id)
    assert original.push_to_hub("someone/model", private=True).startswith("local:someone/model")
    assert "library_name: mu-llama" in (tmp_path / "someone/model/README.md").read_text()
    assert hub.fetch("someone/model", patterns=["*"], expected="it") == tmp_path / "someone/model"
    opened = Listener.from_pretrained("someone/model", dtype="fp32", use_cache=False)
    assert torch.equal(logits_of(opened), logits_of(original))
    with pytest.raises(ConfigError, match="owner/name"):
        original.push_to_hub("no slash")


def test_the_command_under_a_file_size_limit(tmp_path: Path) -> None:
    """The kernel's own refusal to write on, in the middle of a file."""
    resource = pytest.importorskip("resource")
    command = ["convert", str(SET_A / FULL_STATE), str(tmp_path / "model"), "--llama", str(SET_A / "llama")]
    command += ["--encoder", str(SET_A / "mert")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        result = CliRunner().invoke(typer_app, command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 2
    assert "File too large" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
