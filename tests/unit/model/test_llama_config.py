"""A LLaMA's sizes: read as transformers reads them, in its layouts of versions 4 and 5, and written for both."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig as TransformersConfig

from mu_llama.engine.torch.llama import to_transformers
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.model.config import LlamaConfig

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SIZES = {
    "model_type": "llama", "vocab_size": 480, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 16384, "rms_norm_eps": 1e-5,
}  # fmt: skip
LAYOUTS: dict[str, dict[str, Any]] = {
    "4, plain": {"rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "float16", "use_cache": True},
    "4, linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "4, dynamic": {"rope_theta": 1e5, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "4, llama3": {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "4, yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8192}},
    "4, two names of the type": {"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2.0}},
    "5, plain": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "5, linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 2e4, "factor": 2.0}},
    "5, llama3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    "5, yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 2.0, "beta_fast": 16.0}},
    "5, base beside it": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 7e4},
    "both": {"rope_scaling": {"type": "linear", "factor": 3.0}, "rope_parameters": {"rope_type": "default"}},
    "nothing said": {},
    "several ends": {"bos_token_id": 5, "eos_token_id": [2, 7], "pad_token_id": 0},
    "no ends": {"bos_token_id": None, "eos_token_id": None},
    "biases and ties": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "wide heads": {"num_key_value_heads": 2, "head_dim": 32},
    "nothing for heads": {"num_key_value_heads": None, "head_dim": None},
}


def said(config: TransformersConfig) -> dict[str, Any]:
    """What a config says, without what a config.json may leave out or name otherwise."""
    content = config.to_dict()
    rope = {name: value for name, value in content.pop("rope_parameters").items() if name != "type"}
    odd = ("architectures", "dtype", "_name_or_path", "transformers_version", "pad_token_id")
    return {name: value for name, value in content.items() if name not in odd} | {"rope": rope}


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS)
def test_transformers_reads_the_same(content: dict[str, Any], tmp_path: Path) -> None:
    theirs = TransformersConfig.from_dict(copy.deepcopy(SIZES | content))
    config = LlamaConfig.from_json(SIZES | content)
    assert said(to_transformers(config)) == said(theirs)
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    written = TransformersConfig.from_pretrained(tmp_path)
    assert said(written) == said(theirs)
    assert written.pad_token_id == theirs.pad_token_id
    assert LlamaConfig.from_json(config.to_json()) == config
    assert LlamaConfig.from_json(theirs.to_dict()) == config


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS)
def test_what_transformers_4_reads_says_the_same(content: dict[str, Any]) -> None:
    """It knows no `rope_parameters`."""
    config = LlamaConfig.from_json(SIZES | content)
    older = {name: value for name, value in config.to_json().items() if name != "rope_parameters"}
    assert LlamaConfig.from_json(older) == config


def test_a_config_without_sizes_is_llama_7b() -> None:
    assert said(to_transformers(LlamaConfig.from_json({"model_type": "llama"}))) == said(TransformersConfig())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, r"^f: model_type is 'mistral'; expected 'llama'$"),
        ({"model_type": None}, "model_type is None"),
        ({"vocab_size": "480"}, "vocab_size='480'"),
        ({"hidden_size": 0}, "hidden_size=0"),
        ({"num_attention_heads": 0}, "division|num_attention_heads=0"),
        ({"num_attention_heads": 5}, "no multiple of num_attention_heads=5"),
        ({"num_key_value_heads": 3}, "4 query heads over num_key_value_heads=3"),
        ({"head_dim": 7}, "odd width 7"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5'"),
        ({"attention_bias": 1}, "attention_bias=1"),
        ({"eos_token_id": [1, "x"]}, r"eos_token_id=\(1, 'x'\)"),
        ({"hidden_act": "gelu"}, r"hidden_act='gelu' \(expected 'silu'\)"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"rope_scaling": {"type": "linear"}}, "factor=None"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor=None, high_freq_factor=None"),
        ({"rope_scaling": {"type": "su"}}, r"rope_type='su' \(expected linear, dynamic, yarn, llama3\)"),
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3, "high_freq_factor": 1.0}}, "above low_freq_factor"),
        ({"rope_scaling": [1]}, r"rotary angles as \[1\]"),
        ({"rope_theta": -1}, "rope_theta=-1"),
    ],
)
def test_what_is_no_llama(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        LlamaConfig.from_json(SIZES | change, source="f")
    assert "\n" not in str(caught.value)


def test_one_that_is_made_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="vocab_size=0, hidden_size=-1"):
        LlamaConfig(0, -1, 1, 1, 1, 1, 1)
