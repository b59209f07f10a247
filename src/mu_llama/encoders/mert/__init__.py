"""MERT: settings, weight files, encoder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mu_llama.devices import DTYPES
from mu_llama.encoders.protocol import EncoderKind
from mu_llama.errors import ConfigError

if TYPE_CHECKING:
    from mu_llama.encoders.protocol import Encoder

_TYPES = ("mert_model", "hubert")


def _require_torch() -> None:
    missing = [name for name in ("torch", "transformers") if not _is_installed(name)]
    if missing:
        raise ConfigError(
            f"MERT runs on {' and '.join(missing)}, which isn't installed; run: pip install 'mu-llama[torch]'"
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it stands in the table of modules without being one
        return False


def _builder() -> Callable[..., Encoder]:
    _require_torch()
    import torch

    from mu_llama.encoders.mert.encoder import load_mert

    def build(*, path: str, device: str = "cpu", dtype: str = "float32", revision: str | None = None) -> Encoder:
        if dtype not in DTYPES.values():
            raise ConfigError(
                f"the dtype of mert is {dtype!r}; expected one of {', '.join(sorted(DTYPES.values(), reverse=True))}"
            )
        return load_mert(path, device=device, dtype=getattr(torch, dtype), revision=revision)

    return build


def _recognise(config: Mapping[str, Any]) -> bool:
    # MERT's own code reads its config without looking at the type.
    return config.get("model_type", "mert_model" if "conv_kernel" in config else None) in _TYPES


def _find_folder(path_or_id: str | Path) -> Path:
    from mu_llama.encoders.mert.weights import find_mert_folder

    return find_mert_folder(path_or_id)


def _from_tensors(tensors: Mapping[str, Any], config: Mapping[str, Any] | None, *, device: str, source: str) -> Encoder:
    _require_torch()
    from mu_llama.arrays import to_torch
    from mu_llama.encoders.mert.encoder import load_mert_from_tensors, published_config

    weights = {name: to_torch(array) for name, array in tensors.items()}
    return load_mert_from_tensors(
        weights, config or published_config(tensors, source=source), device=device, source=source
    )


def _settings_files(tensors: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    from mu_llama.encoders.mert.config import DEFAULT_RATES_HZ
    from mu_llama.encoders.mert.encoder import published_config

    config = dict(config or published_config(tensors, source="the checkpoint's mert_model"))
    rate_hz = config.get("sample_rate", DEFAULT_RATES_HZ["mert_model"])
    return {"config.json": config, "preprocessor_config.json": {"do_normalize": True, "sampling_rate": rate_hz}}


KIND = EncoderKind(
    "mert",
    _builder,
    title="MERT",
    recognise=_recognise,
    weight_prefixes=("feature_extractor.conv_", "hubert.feature_extractor.", "mert.feature_extractor."),
    find_folder=_find_folder,
    from_tensors=_from_tensors,
    settings_files=_settings_files,
)
