"""The graph against transformers' LLaMA."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from mu_llama.engine.onnx.description import EMBEDDING, GraphDescription, GraphOptions
from mu_llama.engine.onnx.engine import OnnxEngine
from mu_llama.engine.onnx.graph import build_graph
from mu_llama.engine.onnx.quantize import dequantize, quantize
from mu_llama.engine.onnx.weights import stored_head_width, widen, widen_heads
from mu_llama.errors import CheckpointError, ConfigError
from tests.unit.engine.onnx.tiny import (
    VOCABULARY,
    InMemory,
    Sizes,
    cosine,
    engine_of,
    expected_logits,
    random_ids,
    random_llama,
    shapes_of,
    tensors_of,
)

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
FAMILY = {
    "plain": Sizes(num_key_value_heads=6, head_dim=8),
    "grouped queries": Sizes(),
    "one head of keys": Sizes(num_key_value_heads=1),
    "tied": Sizes(tie_word_embeddings=True),
    "attention biases": Sizes(attention_bias=True),
    "all biases": Sizes(attention_bias=True, mlp_bias=True),
    "wide heads": Sizes(hidden_size=40, num_attention_heads=4, head_dim=24),
    "heads of 100": Sizes(
        hidden_size=40, num_attention_heads=2, num_key_value_heads=1, head_dim=100, attention_bias=True
    ),
    "heads of 10": Sizes(hidden_size=30, num_attention_heads=3, num_key_value_heads=3, head_dim=10),
    "linear rope": Sizes(rope_scaling={"rope_type": "linear", "factor": 4.0}),
    "llama3 rope": Sizes(head_dim=32, rope_theta=500000.0, rope_scaling=LLAMA3),
    "old name of the rope type": Sizes(rope_scaling={"type": "linear", "factor": 2.0}),
    "one layer": Sizes(num_hidden_layers=1),
}


@pytest.mark.parametrize("sizes", FAMILY.values(), ids=FAMILY)
def test_float_logits_are_those_of_transformers(tmp_path: Path, sizes: Sizes) -> None:
    published = Sizes(**vars(sizes))
    if sizes.rope_scaling and "type" in sizes.rope_scaling:
        published.rope_scaling = {"rope_type": sizes.rope_scaling["type"], "factor": sizes.rope_scaling["factor"]}
    llama = random_llama(published)
    engine = engine_of(tmp_path, llama, sizes)
    ids = random_ids(120)
    expected = expected_logits(llama, ids)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(engine.logits(ids), expected, atol=1e-4, rtol=1e-4)


def test_greedy_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    sizes = Sizes(attention_bias=True)
    llama = random_llama(sizes)
    rows = engine_of(tmp_path, llama, sizes).new_rows(1)
    prompt = random_ids(20)
    with torch.inference_mode():
        expected = llama.generate(torch.tensor([prompt]), max_new_tokens=60, do_sample=False, eos_token_id=None)
    row = rows.join()
    logits, tokens = rows.read(row, prompt), []
    for _ in range(60):
        tokens.append(int(logits.argmax()))
        logits = rows.step({row: tokens[-1]})[row]
    assert tokens == expected[0, 20:].tolist()


@pytest.mark.parametrize("accuracy_level", [0, 4])
@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize(("precision", "head_bits"), [("int8", 8), ("int4", 8), ("int4", 4)])
@pytest.mark.parametrize("family", ["all biases", "heads of 100", "tied"])
def test_a_quantized_graph_computes_with_the_weights_it_stands_for(
    tmp_path: Path, family: str, precision: Any, head_bits: Any, symmetric: bool, block_size: int, accuracy_level: int
) -> None:
    sizes = FAMILY[family]
    llama = random_llama(sizes, std=0.15)
    options = GraphOptions(precision, block_size, symmetric, head_bits, accuracy_level)
    engine = engine_of(tmp_path, llama, sizes, **vars(options))
    for name, linear in llama.named_modules():
        if isinstance(linear, torch.nn.Linear):
            block_format = options.block_format(is_head=name == "lm_head")
            assert block_format is not None
            weight = linear.weight.numpy()
            if name.endswith("o_proj"):  # its columns are filled up before they are cut into blocks
                weight = widen_heads(weight, sizes.head_dim, stored_head_width(sizes.head_dim), axis=1)
            rounded = dequantize(quantize(weight, block_format), block_format, num_columns=weight.shape[1])
            assert 0 < np.abs(rounded - weight).max() < 0.1
            if name.endswith("o_proj"):
                stored = stored_head_width(sizes.head_dim)
                rounded = rounded.reshape(len(rounded), -1, stored // 2)[..., : sizes.head_dim // 2]
            linear.weight = torch.nn.Parameter(torch.from_numpy(rounded.reshape(len(rounded), -1).copy()))
    if sizes.tie_word_embeddings:  # rounded in the head alone
        llama.model.embed_tokens.weight = torch.nn.Parameter(torch.from_numpy(engine.embed(range(VOCABULARY))))
    ids = random_ids(30)
    came, expected = engine.logits(ids), expected_logits(llama, ids)
    if accuracy_level == 0:
        np.testing.assert_allclose(came, expected, atol=2e-2, rtol=2e-3)  # embeddings are float16
    assert cosine(came, expected) > (0.9999 if accuracy_level == 0 else 0.99)


def test_a_shorter_context_can_be_chosen(tmp_path: Path) -> None:
    sizes = Sizes()
    engine = engine_of(tmp_path, random_llama(sizes), sizes, num_audio_tokens=10, max_positions=100)
    assert engine.context_length == 90


@pytest.mark.parametrize(
    ("dtype", "precision", "stored"),
    [
        (np.float32, "fp32", "float32"), (np.float32, "int8", "float16"), (np.float16, "int8", "float16"),
        (ml_dtypes.bfloat16, "fp32", "bfloat16"), (ml_dtypes.bfloat16, "int4", "bfloat16"),
    ],
)  # fmt: skip
def test_embeddings_keep_16_bits(tmp_path: Path, dtype: Any, precision: Any, stored: str) -> None:
    sizes = Sizes()
    tensors = tensors_of(random_llama(sizes))
    source = tensors["model.embed_tokens.weight"].value.astype(dtype)
    tensors["model.embed_tokens.weight"] = InMemory(source)
    description = build_graph(tmp_path, sizes, tensors, options=GraphOptions(precision))
    assert description.table[EMBEDDING].dtype == stored
    expected = source.astype(np.float16).astype(np.float32) if stored == "float16" else source.astype(np.float32)
    engine = OnnxEngine(tmp_path, num_threads=1)
    np.testing.assert_array_equal(engine.embed([3, 0, VOCABULARY - 1]), expected[[3, 0, VOCABULARY - 1]])
    for ids in ([VOCABULARY], [-1], [2, 99999]):
        with pytest.raises(CheckpointError, match="expected 0 to 66"):
            engine.embed(ids)


def test_bf16_weights_make_the_graph_of_their_values(tmp_path: Path) -> None:
    sizes = Sizes(tie_word_embeddings=True)
    narrow = {name: value.value.astype(ml_dtypes.bfloat16) for name, value in tensors_of(random_llama(sizes)).items()}
    for name, dtype in (("bf16", ml_dtypes.bfloat16), ("wide", np.float32)):
        (tmp_path / name).mkdir()
        tensors = {key: InMemory(value.astype(dtype)) for key, value in narrow.items()}
        build_graph(tmp_path / name, sizes, tensors, options=GraphOptions("fp32"))
    one, other = (OnnxEngine(tmp_path / name, num_threads=1).logits([1, 2, 3]) for name in ("bf16", "wide"))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_value_projections_are_read_back(tmp_path: Path, precision: Any) -> None:
    sizes = Sizes(head_dim=24)
    llama = random_llama(sizes)
    engine = engine_of(tmp_path, llama, sizes, precision=precision, num_conditioned_layers=2, block_size=16)
    for index in range(2):
        expected = llama.model.layers[1 + index].self_attn.v_proj.weight.numpy()
        atol = {"fp32": 0, "int8": 0.01, "int4": 0.15}[precision]
        np.testing.assert_allclose(engine.value_projection(index), expected, atol=atol, rtol=0)


def test_progress_counts_every_weight(tmp_path: Path) -> None:
    sizes = Sizes(tie_word_embeddings=True)
    tensors = tensors_of(random_llama(sizes))
    totals, done = [], []

    def progress(label: str, total: int) -> Any:
        totals.append(total)
        return done.append

    build_graph(tmp_path, sizes, tensors, options=GraphOptions(), progress=progress)
    embedding = VOCABULARY * sizes.hidden_size  # read once for look-ups, once as the output embedding
    assert sum(done) == totals[0] == sum(tensor.value.size for tensor in tensors.values()) + embedding


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'.*--engine torch"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'.*--engine torch"),
        ({"head_dim": 15}, "head_dim=15 .expected an even number.*--engine torch"),
        ({"num_key_value_heads": 4}, "num_key_value_heads=4"),
    ],
)
def test_what_it_cannot_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    tensors = tensors_of(random_llama(Sizes()))
    with pytest.raises(ConfigError, match=message):
        build_graph(tmp_path, Sizes(**changes), tensors, options=GraphOptions())


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tensors = tensors_of(random_llama(Sizes()))
    with pytest.raises(
        CheckpointError, match=r"'lm_head.weight' has shape \(67, 48\); expected \(68, 48\)|embed_tokens"
    ):
        build_graph(tmp_path, Sizes(vocab_size=68), tensors, options=GraphOptions())
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(CheckpointError, match=r"'model.layers.1.mlp.up_proj.weight' is missing"):
        build_graph(tmp_path, Sizes(), tensors, options=GraphOptions())


def test_a_description_of_another_version_is_refused(tmp_path: Path) -> None:
    engine_of(tmp_path, random_llama(Sizes()), Sizes())
    path = tmp_path / "graph.json"
    path.write_text(path.read_text().replace('"version": ', '"version": 9'))
    with pytest.raises(CheckpointError, match="version is 91; expected 1"):
        GraphDescription.read(tmp_path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="no description of a graph"):
        GraphDescription.read(tmp_path)


def test_widening_is_exact() -> None:
    values = np.array([0.0, -1.5, 3.25, 1e-30, np.inf], np.float32)
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        np.testing.assert_array_equal(widen(values.astype(dtype)), values.astype(dtype).astype(np.float32))


@dataclass
class Zeros:
    """A tensor that takes memory only once it is read."""

    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        return np.zeros(self.shape, np.float32)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_building_takes_the_memory_of_one_tensor(tmp_path: Path, precision: Any) -> None:
    sizes = Sizes(hidden_size=120, intermediate_size=20000, num_hidden_layers=4, vocab_size=100)
    tensors = {name: Zeros(shape) for name, shape in shapes_of(sizes).items()}
    largest = max(np.prod(tensor.shape) * 4 for tensor in tensors.values())
    tracemalloc.start()
    try:
        build_graph(tmp_path, sizes, tensors, options=GraphOptions(precision))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    scales = sum(np.prod(tensor.shape) / 8 for tensor in tensors.values() if len(tensor.shape) == 2) / 4
    assert peak < 1.2 * largest + scales + 6e6  # pieces of a tensor take 5 MB
