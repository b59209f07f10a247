"""What a MERT folder's JSON files say, as settings of transformers' HubertModel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import HubertConfig

from mu_llama.errors import CheckpointError, ModelNotFoundError
from mu_llama.hub import refuse_lfs_pointer

DEFAULT_RATES_HZ = MappingProxyType({"mert_model": 24000, "hubert": 16000})
"""Model types that can be read, and the rate of each where no file names one."""

COMPUTATION_FIELDS = (
    "conv_bias",
    "conv_dim",
    "conv_kernel",
    "conv_pos_batch_norm",
    "conv_stride",
    "do_stable_layer_norm",
    "feat_extract_activation",
    "feat_extract_norm",
    "feat_proj_layer_norm",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "num_attention_heads",
    "num_conv_pos_embedding_groups",
    "num_conv_pos_embeddings",
    "num_hidden_layers",
)
"""The keys of config.json that change what the model computes.

Everything else there is about training, about files (`auto_map` is never followed) or, as `attention_relax`,
without effect on the numbers.
"""

REFUSED_FIELDS = MappingProxyType(
    {
        "deepnorm": "scales residuals in a way that HuBERT doesn't have",
        "feature_extractor_cqt": "adds constant-Q features that need another front end",
        "adapter_attn_dim": "adds adapter layers that no MERT has",
    }
)
"""Keys of config.json that must be off, each with what it would do."""

NO_NOISE = MappingProxyType(
    {
        "activation_dropout": 0.0,
        "apply_spec_augment": False,
        "attention_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "final_dropout": 0.0,
        "hidden_dropout": 0.0,
        "layerdrop": 0.0,
        "mask_feature_prob": 0.0,
        "mask_time_prob": 0.0,
    }
)
"""Training noise is off for good: a frozen encoder has one answer, also if someone calls `.train()` on it."""

_PUBLISHED_COMMON = {
    "model_type": "mert_model",
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "feat_extract_norm": "group",
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "sample_rate": 24000,
}
PUBLISHED_CONFIGS = MappingProxyType(
    {
        "MERT-v1-330M": _PUBLISHED_COMMON
        | {
            "do_stable_layer_norm": True,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
        },
        "MERT-v1-95M": _PUBLISHED_COMMON
        | {
            "do_stable_layer_norm": False,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
        },
    }
)
"""Settings of the two published sizes, for checkpoints that hold MERT's tensors and no config.json."""


@dataclass(frozen=True)
class MertConfig:
    """Everything besides the weights that decides the features."""

    computation: Mapping[str, Any]
    """The fields of COMPUTATION_FIELDS."""
    rate_hz: int
    """Sample rate that the model was trained on."""
    do_normalize: bool
    """Whether each window is brought to zero mean and unit variance first."""

    @property
    def min_samples(self) -> int:
        """The shortest window that gives one frame: the convolutions' receptive field (400 samples)."""
        num_samples = 1
        layers = zip(self.computation["conv_kernel"], self.computation["conv_stride"], strict=True)
        for kernel, stride in reversed(list(layers)):
            num_samples = (num_samples - 1) * stride + kernel
        return num_samples

    def to_hubert(self) -> HubertConfig:
        """Give the same settings to transformers, with all training noise off."""
        return HubertConfig(**self.computation, **NO_NOISE)


def parse_mert_config(
    config: Mapping[str, Any], *, preprocessor: Mapping[str, Any] | None = None, source: str = "config"
) -> MertConfig:
    """Check the contents of config.json and preprocessor_config.json.

    Args:
        config: contents of config.json, of model type `mert_model` or `hubert`; fields that it leaves out
            take HuBERT's defaults, as in transformers.
        preprocessor: contents of preprocessor_config.json; without it the rate is `sample_rate` of `config`
            or the model type's usual one, and windows are normalised.
        source: how errors name the config.

    Raises:
        CheckpointError: for another model type, a refused field, or a value that makes no model.
    """
    model_type = config.get("model_type", "mert_model")
    if model_type not in DEFAULT_RATES_HZ:
        known = " or ".join(DEFAULT_RATES_HZ)
        raise CheckpointError(f"{source} has model_type {model_type!r}; expected {known}: give a MERT-v1 folder")
    for field, effect in REFUSED_FIELDS.items():
        if config.get(field):
            raise CheckpointError(
                f"{source} has {field}={config[field]!r}, which {effect}; expected it off: use MERT-v1"
            )
    given = {field: config[field] for field in COMPUTATION_FIELDS if field in config}
    try:
        hubert = HubertConfig(**given)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise CheckpointError(f"{source} doesn't describe a HuBERT: {' '.join(str(error).split())}") from error
    preprocessor = preprocessor or {}
    fallback_rate_hz = config.get("sample_rate", DEFAULT_RATES_HZ[model_type])
    rate_hz = preprocessor.get("sampling_rate", fallback_rate_hz)
    if not isinstance(rate_hz, int) or rate_hz <= 0:
        raise CheckpointError(f"{source} has the rate {rate_hz!r}; expected a positive whole number of Hz")
    return MertConfig(
        computation=MappingProxyType({field: getattr(hubert, field) for field in COMPUTATION_FIELDS}),
        rate_hz=rate_hz,
        do_normalize=bool(preprocessor.get("do_normalize", True)),
    )


def read_mert_config(folder: Path) -> MertConfig:
    """Read config.json and, where it exists, preprocessor_config.json of a MERT folder.

    Raises:
        ModelNotFoundError: if there is no config.json.
        CheckpointError: if a file isn't JSON or doesn't describe a MERT.
    """
    path = folder / "config.json"
    preprocessor_path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise ModelNotFoundError(f"{folder} has no config.json; expected a MERT folder: download it completely")
    preprocessor = _read_json_object(preprocessor_path) if preprocessor_path.is_file() else None
    return parse_mert_config(_read_json_object(path), preprocessor=preprocessor, source=str(path))


def _read_json_object(path: Path) -> dict[str, Any]:
    refuse_lfs_pointer(path)
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} isn't valid JSON ({error}): download it again") from error
    if not isinstance(contents, dict):
        raise CheckpointError(f"{path} holds a {type(contents).__name__}; expected a JSON object")
    return contents
