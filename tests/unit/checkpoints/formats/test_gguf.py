"""GGUF: what is written is read back equal, transformers agrees, and no odd or damaged file gets through.

llama.cpp itself was run on files written by this code when it was made: float32 log-probabilities were within
1.5e-4 of transformers' (biases, grouped heads, wide heads, LLaMA-3.1's angles), token ids were equal.
"""

from __future__ import annotations

import ast
import errno
import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import mu_llama.checkpoints
from mu_llama.arrays import FLOAT32, numpy_dtype
from mu_llama.checkpoints.formats.gguf import read_gguf_llama
from mu_llama.checkpoints.formats.gguf_writing import WITHOUT_AUDIO, write_gguf
from mu_llama.checkpoints.formats.sentencepiece import BpeModel, Piece, parse_bpe_model, serialise_bpe_model
from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_memory
from mu_llama.checkpoints.names import llama3_factors
from mu_llama.checkpoints.spec import LlamaSpec, TokenizerFile
from mu_llama.engine.torch.llama import to_transformers
from mu_llama.errors import CheckpointError
from tests.factories.tensors import own_config, read, stored

GOLDEN = Path(__file__).parents[3] / "golden" / "set_a"
SENTENCEPIECE = GOLDEN / "llama" / "tokenizer.model"
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
BIASED = {"attention_bias": True, "mlp_bias": True}


def tiny_llama(dtype: torch.dtype = torch.float32, **settings: Any) -> LlamaForCausalLM:
    """Sizes of the golden set, with grouped heads."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 480, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16384, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}, "pad_token_id": None,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**sizes | settings))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


def stored_tensors(model: LlamaForCausalLM) -> dict[str, LazyTensor]:
    tied = model.config.tie_word_embeddings
    return stored({name: x for name, x in model.state_dict().items() if not (tied and name == "lm_head.weight")})


def sentencepiece_file() -> TokenizerFile:
    return TokenizerFile("tokenizer.model", str(SENTENCEPIECE), SENTENCEPIECE.read_bytes)


def write(
    path: Path, model: LlamaForCausalLM, *, tokenizer: TokenizerFile | None = None, **changes: LazyTensor
) -> Path:
    tensors = stored_tensors(model) | {name.replace("__", "."): value for name, value in changes.items()}
    write_gguf(
        path, own_config(model.config), tensors, tokenizer or sentencepiece_file(), name="Tiny",
        description="For a test.", licence="MIT",
    )  # fmt: skip
    return path


def read_back(llama: LlamaSpec) -> LlamaForCausalLM:
    model = LlamaForCausalLM(to_transformers(llama.config))
    state = {name: read(value) for name, value in llama.tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if llama.config.tie_word_embeddings else [])
    return model


CASES = {
    "plain": (torch.float32, {}),
    "tied": (torch.bfloat16, {"tie_word_embeddings": True}),
    "biases": (torch.float16, BIASED),
    "wide heads": (torch.float32, {"head_dim": 16, **BIASED}),
    "scaled angles": (torch.bfloat16, {"head_dim": 64, "rope_parameters": LLAMA3}),
}


@pytest.mark.parametrize(("dtype", "settings"), CASES.values(), ids=CASES)
def test_what_is_written_is_read_back(dtype: torch.dtype, settings: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_llama(dtype, **settings)
    llama = read_gguf_llama(write(tmp_path / "tiny.gguf", model))
    expected = stored_tensors(model)
    assert set(llama.tensors) == set(expected)
    for name, inside in llama.tensors.items():
        value = read(inside)
        assert (tuple(value.shape), numpy_dtype(value.dtype)) == (inside.shape, inside.dtype)
        assert value.dtype == (dtype if value.ndim == 2 else torch.float32), name
        assert torch.equal(value.to(dtype), read(expected[name])), name
    assert llama.config == own_config(model.config)


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": True}, {"head_dim": 16}])
def test_transformers_reads_the_same_model(settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model = tiny_llama(**settings)
    write(tmp_path / "tiny.gguf", model)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    ids = torch.arange(1, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids).logits)
        torch.testing.assert_close(read_back(read_gguf_llama(tmp_path))(ids).logits, model(ids).logits)


def test_biases_and_order_of_rows_are_llama_cpps(tmp_path: Path) -> None:
    """The library's own list of names, and the formula of llama.cpp's converter."""
    model = tiny_llama(**BIASED)
    reader = gguf.GGUFReader(write(tmp_path / "tiny.gguf", model))
    inside = {record.name: record.data for record in reader.tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, value in model.state_dict().items():
        array = value.numpy()
        for module, heads in (("q_proj", 4), ("k_proj", 2)):
            if module in name:
                halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
                array = halves.swapaxes(1, 2).reshape(array.shape)
        np.testing.assert_array_equal(inside.pop(names.get_name(name, try_suffixes=(".weight", ".bias"))), array)
    assert not inside


def test_metadata(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(write(tmp_path / "tiny.gguf", tiny_llama(torch.bfloat16)))
    found = {name: field.contents() for name, field in reader.fields.items()}
    assert found["general.name"] == "Tiny"
    assert found["general.description"] == f"For a test. {WITHOUT_AUDIO}"
    assert found["general.license"] == "MIT"
    assert found["general.file_type"] == gguf.LlamaFileType.MOSTLY_BF16
    assert (found["llama.attention.head_count"], found["llama.attention.head_count_kv"]) == (4, 2)
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert found["tokenizer.ggml.add_bos_token"] is True


def golden_texts() -> list[str]:
    cases = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))["tokenizer"]["encode"]
    return [case["text"] for case in cases]


def test_sentencepiece_gives_the_originals_ids(tmp_path: Path) -> None:
    tokenizer = read_gguf_llama(write(tmp_path / "tiny.gguf", tiny_llama())).tokenizer
    assert tokenizer.name == "tokenizer.model"
    ours = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.read())
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(SENTENCEPIECE))
    for text in [*golden_texts(), "<s>[INST] \u2581x\u0000 </s>", "日本語 テスト\r\n", " ", "     deep"]:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.decode([0, 300, 198, 172]) == theirs.decode([0, 300, 198, 172])
    for ask in ("vocab_size", "bos_id", "eos_id", "unk_id", "pad_id"):
        assert getattr(ours, ask)() == getattr(theirs, ask)()
    assert ours.encode("a") == [259]  # no begin token of its own


def test_a_padded_embedding_pads_the_tokenizer(tmp_path: Path) -> None:
    llama = read_gguf_llama(write(tmp_path / "tiny.gguf", tiny_llama(vocab_size=512)))
    assert llama.config.vocab_size == 512
    ours = sentencepiece.SentencePieceProcessor(model_proto=llama.tokenizer.read())
    assert ours.vocab_size() == 512
    assert ours.encode("a café") == sentencepiece.SentencePieceProcessor(model_file=str(SENTENCEPIECE)).encode("a café")


def byte_level(splitting: Any, *, ignore_merges: bool = False) -> TokenizerFile:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [["a", "b"], ["1", "2"], ["ab", "ab"], ["Ġ", "ab"]]
    words = ["<|end|>", *letters, *("".join(pair) for pair in merges), "hello"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [
            {"id": 0, "content": "<|end|>", "special": True, **plain},
            {"id": len(words), "content": "<tool call>", "special": False, **plain},
        ],
        "pre_tokenizer": splitting, "decoder": {**BYTE_LEVEL, "add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": ignore_merges,
            "vocab": {word: index for index, word in enumerate(words)}, "merges": merges,
        },
    }  # fmt: skip
    return TokenizerFile("tokenizer.json", "tokenizer.json", lambda: json.dumps(content).encode())


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA3_WORDS = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
SPLIT = {"type": "Split", "pattern": {"Regex": LLAMA3_WORDS}, "behavior": "Isolated", "invert": False}
SPLITTINGS = {
    "smollm": byte_level({"type": "Sequence", "pretokenizers": [DIGITS, {**BYTE_LEVEL, "trim_offsets": False}]}),
    "gpt-2": byte_level(BYTE_LEVEL),
    "llama-bpe": byte_level(
        {"type": "Sequence", "pretokenizers": [SPLIT, {**BYTE_LEVEL, "use_regex": False}]}, ignore_merges=True
    ),
}


@pytest.mark.parametrize("name", SPLITTINGS)
def test_byte_level_gives_the_originals_ids(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_llama(vocab_size=320), tokenizer=SPLITTINGS[name])
    assert gguf.GGUFReader(path).fields["tokenizer.ggml.pre"].contents() == name
    ours = Tokenizer.from_str(read_gguf_llama(path).tokenizer.read().decode())
    theirs = Tokenizer.from_str(SPLITTINGS[name].read().decode())
    for text in [*golden_texts(), "abab 12123 hello ab<|end|>ab<tool call>\r\n\n  x", "don't DON'T"]:
        assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text, add_special_tokens=False).ids
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.get_vocab_size() == 320


def rewrite(path: Path, **changes: Any) -> Path:
    """Copy a file with the library, some metadata changed (None takes it out), and tensors quantized."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_name("rewritten.gguf"), changes.get("architecture", "llama"))
    adders = {"int": writer.add_uint32, "float": writer.add_float32, "bool": writer.add_bool, "str": writer.add_string}
    metadata = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    metadata = {name: value for name, value in metadata.items() if name != "general.architecture"}
    for name, value in (metadata | changes.get("metadata", {})).items():
        if value is not None:
            adders.get(type(value).__name__, writer.add_array)(name, value)
    for record in reader.tensors:
        if record.name == changes.get("without"):
            continue
        kind = changes.get("kinds", {}).get(record.name, gguf.GGMLQuantizationType.F32)
        writer.add_tensor(record.name, gguf.quantize(np.array(record.data), kind), raw_dtype=kind)
    for name, value in changes.get("tensors", {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("rewritten.gguf")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.gguf", tiny_llama())


def test_quantized_tensors_are_dequantized(tiny: Path) -> None:
    kinds = {"blk.0.attn_q.weight": "Q8_0", "blk.1.ffn_up.weight": "Q4_0", "blk.1.attn_k.weight": "Q5_1"}
    kinds |= {"blk.0.ffn_up.weight": "F16", "blk.0.attn_v.weight": "BF16"}
    types = {name: gguf.GGMLQuantizationType[kind] for name, kind in kinds.items()}
    tensors = read_gguf_llama(rewrite(tiny, kinds=types)).tensors
    expected = tiny_llama().state_dict()
    for name, dtype, tolerance in (
        ("layers.0.self_attn.q_proj", torch.float32, 0.01),
        ("layers.1.mlp.up_proj", torch.float32, 0.2),
        ("layers.1.self_attn.k_proj", torch.float32, 0.06),
        ("layers.0.mlp.up_proj", torch.float16, 1e-3),
        ("layers.0.self_attn.v_proj", torch.bfloat16, 1e-2),
    ):
        value = read(tensors[f"model.{name}.weight"])
        assert (value.dtype, tensors[f"model.{name}.weight"].dtype) == (dtype, numpy_dtype(dtype))
        torch.testing.assert_close(value.float(), expected[f"model.{name}.weight"], atol=tolerance, rtol=0, msg=name)


def test_missing_biases_are_zero(tiny: Path) -> None:
    llama = read_gguf_llama(rewrite(tiny, tensors={"blk.0.attn_q.bias": np.arange(32, dtype=np.float32)}))
    assert (llama.config.attention_bias, llama.config.mlp_bias) == (True, False)
    read_back(llama)
    assert llama.tensors["model.layers.0.self_attn.q_proj.bias"].read()[:4].tolist() == [0, 2, 4, 6]
    assert not llama.tensors["model.layers.1.self_attn.o_proj.bias"].read().any()


@pytest.mark.parametrize("changes", [{}, {"factor": 32.0}, {"high_freq_factor": 2.5}, {"rope_theta": 500000.0}])
def test_llama3s_factors_are_transformers(changes: dict[str, float]) -> None:
    config = LlamaConfig(head_dim=128, max_position_embeddings=131072, rope_parameters=LLAMA3 | changes)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    unscaled = config.rope_parameters["rope_theta"] ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    factors = llama3_factors(own_config(config))
    assert len({round(float(factor), 3) for factor in factors}) > 4
    np.testing.assert_allclose(factors, (unscaled / scaled.double()).numpy(), rtol=2e-6)


def test_factors_of_one_scale_nothing(tiny: Path) -> None:
    llama = read_gguf_llama(rewrite(tiny, tensors={"rope_freqs.weight": np.ones(4, dtype=np.float32)}))
    assert llama.config.rope_scaling is None
    assert "rope_freqs.weight" not in llama.tensors


ODD_MODELS = {
    "architecture": ({"architecture": "qwen2"}, r"architecture 'qwen2'; expected 'llama'"),
    "linear": ({"metadata": {"llama.rope.scale_linear": 4.0}}, r"linear, factor 4.0.*expected none or"),
    "yarn": ({"metadata": {"llama.rope.scaling.type": "yarn"}}, r"scales rotary angles \(yarn"),
    "factors": ({"tensors": {"rope_freqs.weight": np.array([1, 1, 3, 5], np.float32)}}, "'rope_freqs.weight' scales"),
    "missing": ({"without": "blk.1.ffn_up.weight"}, r"lacks 1 of 21 tensors, first 'blk.1.ffn_up.weight'"),
    "experts": ({"tensors": {"blk.0.ffn_gate_exps.weight": np.ones((2, 32), np.float32)}}, "unexpected.*plain LLaMA"),
    "per layer": ({"metadata": {"llama.feed_forward_length": [96, 64]}}, r"is \[96, 64\]; expected one number"),
    "partly rotary": ({"metadata": {"llama.rope.dimension_count": 4}}, r"dimension_count is 4; expected.* 8"),
    "heads": ({"metadata": {"llama.attention.head_count_kv": 1}}, r"'blk.0.attn_k.weight' has shape.*expected 8 rows"),
    "no eps": ({"metadata": {"llama.attention.layer_norm_rms_epsilon": None}}, "lacks.*rms_epsilon"),
    "tokenizer": (
        {"metadata": {"tokenizer.ggml.model": "t5"}},
        r"tokenizer 't5'.*expected 'llama', or 'gpt2' with smo",
    ),
    "splitting": (
        {"metadata": {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2"}},
        r"tokenizer 'gpt2' with pre-tokenizer 'qwen2'",
    ),
    "kind of token": (
        {"metadata": {"tokenizer.ggml.token_type": [-1] * 480}},
        "lacks the tokenizer's tokens or token_type",
    ),
    "no scores": (
        {"metadata": {"tokenizer.ggml.scores": None}},
        "lacks the tokenizer's tokens or token_type or scores",
    ),
}


@pytest.mark.parametrize(("changes", "message"), ODD_MODELS.values(), ids=ODD_MODELS)
def test_other_models_are_refused(changes: dict[str, Any], message: str, tiny: Path) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_gguf_llama(rewrite(tiny, **changes))
    assert "\n" not in str(caught.value)


def test_damaged_files(tiny: Path) -> None:
    whole = tiny.read_bytes()
    rng = np.random.default_rng(0)
    for size in [4, 20, len(whole) - 1, *rng.integers(8, 24000, 12), *rng.integers(24000, len(whole), 6)]:
        tiny.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="not a whole GGUF file"):
            read_gguf_llama(tiny)
    for content in (b"", b"PK\3\4" + whole):
        tiny.write_bytes(content)
        with pytest.raises(CheckpointError, match="isn't GGUF"):
            read_gguf_llama(tiny)


def test_a_file_cut_after_it_was_opened(tiny: Path) -> None:
    tensors = read_gguf_llama(tiny).tensors
    tiny.write_bytes(tiny.read_bytes()[:30000])
    with pytest.raises(CheckpointError, match="ends too early"):
        list(tensors.values())[-1].read()


def test_folders(tiny: Path) -> None:
    assert read_gguf_llama(tiny.parent).source == str(tiny.parent)
    shutil.copy(tiny, tiny.with_name("other.gguf"))
    with pytest.raises(CheckpointError, match=r"holds other\.gguf, tiny\.gguf; expected one"):
        read_gguf_llama(tiny.parent)
    (tiny.parent / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no \.gguf file"):
        read_gguf_llama(tiny.parent / "empty")


def test_split_files_are_one_model(tmp_path: Path) -> None:
    model = tiny_llama()
    reader = gguf.GGUFReader(write(tmp_path / "tiny.gguf", model))
    folder = tmp_path / "split"
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama", split_max_tensors=8)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0], (field.types[1:] or [None])[0])
    for record in reader.tensors:
        writer.add_tensor(record.name, np.array(record.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    pieces = sorted(folder.iterdir())
    assert len(pieces) == 3
    for path in (folder, pieces[1]):
        back = read_back(read_gguf_llama(path)).state_dict()
        assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    pieces[2].unlink()
    with pytest.raises(CheckpointError, match=r"tiny-00003-of-00003\.gguf missing; expected all 3 pieces"):
        read_gguf_llama(folder)


def test_writing_holds_one_tensor(tmp_path: Path) -> None:
    alive: set[int] = set()
    most = 0

    def load(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        nonlocal most
        copy = value.copy()
        alive.add(id(copy))
        weakref.finalize(copy, alive.discard, id(copy))
        most = max(most, len(alive))
        return copy

    model = tiny_llama(torch.float16, **BIASED)
    tensors = {
        name: LazyTensor(value.shape, value.dtype, lambda value=value: load(value.read()))
        for name, value in stored_tensors(model).items()
    }
    told: list[int] = []
    write_gguf(
        tmp_path / "tiny.gguf", own_config(model.config), tensors, sentencepiece_file(), name="Tiny", description="",
        licence=None, advance=told.append,
    )  # fmt: skip
    assert most == 1
    assert sum(told) == sum(value.size_bytes for value in tensors.values())


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow above 64 KiB."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing(tmp_path: Path, full_disk: None) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"the old one")
    with pytest.raises(OSError):
        write(tmp_path / "tiny.gguf", tiny_llama())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the old one"]


def test_a_weight_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> np.ndarray[Any, Any]:
        raise OSError(errno.EIO, "broken disk")

    with pytest.raises(OSError, match="broken disk"):
        write(tmp_path / "tiny.gguf", tiny_llama(), model__norm__weight=LazyTensor((32,), FLOAT32, fail))
    assert not list(tmp_path.iterdir())


def unigram() -> TokenizerFile:
    data = serialise_bpe_model(BpeModel([Piece("<unk>", 0.0, 2), Piece("<s>", 0.0, 3), Piece("</s>", 0.0, 3)]))
    return TokenizerFile("tokenizer.model", "u.model", lambda: data.replace(b"\x18\x02\x20\x03", b"\x18\x01\x20\x03"))


def with_byte_fallback() -> TokenizerFile:
    content = json.loads(SPLITTINGS["gpt-2"].read())
    content["model"]["byte_fallback"] = True
    return TokenizerFile("tokenizer.json", "t.json", lambda: json.dumps(content).encode())


UNFIT = {
    "unknown": ({}, {"model__extra__weight": in_memory(np.ones(2))}, r"unexpected keys 'model.extra.weight'"),
    "dtype": ({}, {"lm_head__weight": in_memory(np.ones((480, 32)))}, r"'lm_head.weight' is float64"),
    "angles": (
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, {}, r"rope type 'linear'",
    ),
    "too many tokens": ({"vocab_size": 400}, {}, r"480 tokens, the LLaMA has 400"),
    "no tokenizer.model": ({}, {"tokenizer": with_byte_fallback()}, r"put the LLaMA's beside it"),
    "other tokenizer.model": ({}, {"tokenizer": unigram()}, r"u.model: not of LLaMA's kind"),
    "damaged tokenizer.model": (
        {}, {"tokenizer": TokenizerFile("tokenizer.model", "d.m", lambda: b"\x0a\xff")}, "not a SentencePiece model",
    ),
    "other tokenizer.json": ({}, {"tokenizer": byte_level({"type": "Whitespace"})}, "GGUF has no name for"),
    "damaged tokenizer.json": (
        {}, {"tokenizer": TokenizerFile("tokenizer.json", "d.json", lambda: b"{}")}, "not a whole tokenizer.json",
    ),
    "no end token": ({"eos_token_id": None}, {"tokenizer": SPLITTINGS["smollm"]}, "names no eos_token_id"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "changes", "message"), UNFIT.values(), ids=UNFIT)
def test_what_gguf_has_no_place_for(
    settings: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        write(tmp_path / "tiny.gguf", tiny_llama(**settings), **changes)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    model = tiny_llama()
    tensors = stored_tensors(model)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(CheckpointError, match=r"'model.layers.1.mlp.up_proj.weight' isn't among"):
        write_gguf(
            tmp_path / "x.gguf",
            own_config(model.config),
            tensors,
            sentencepiece_file(),
            name="",
            description="",
            licence=None,
        )


def test_the_original_tokenizer_model_is_understood() -> None:
    model = parse_bpe_model(SENTENCEPIECE.read_bytes(), source="x")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(SENTENCEPIECE))
    assert [piece.text for piece in model.pieces] == [theirs.id_to_piece(i) for i in range(theirs.vocab_size())]
    assert [piece.score for piece in model.pieces] == [theirs.get_score(i) for i in range(theirs.vocab_size())]
    assert parse_bpe_model(serialise_bpe_model(model), source="x") == model


def test_the_library_is_only_loaded_when_used() -> None:
    folder = Path(mu_llama.checkpoints.__file__).parent
    for path in folder.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert "gguf" not in [name.split(".")[0] for name in names], path
            assert getattr(node, "module", None) != "gguf", path
