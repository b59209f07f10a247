"""Audio encoders: a stretch of sound becomes a few vectors. Importing this loads no torch."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mu_llama.errors import ConfigError

if TYPE_CHECKING:
    from mu_llama.encoders.protocol import Encoder


def _mert_builder() -> Callable[..., Encoder]:
    import torch

    from mu_llama.encoders.mert.encoder import load_mert

    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

    def build(*, path: str, device: str = "cpu", dtype: str = "float32", revision: str | None = None) -> Encoder:
        if dtype not in dtypes:
            raise ConfigError(f"the dtype of mert is {dtype!r}; expected one of {', '.join(dtypes)}")
        return load_mert(path, device=device, dtype=dtypes[dtype], revision=revision)

    return build


def _musicnn_builder() -> Callable[..., Encoder]:
    from mu_llama.encoders.musicnn.encoder import build_musicnn

    return build_musicnn


ENCODERS: Mapping[str, Callable[[], Callable[..., Encoder]]] = MappingProxyType(
    {"mert": _mert_builder, "musicnn": _musicnn_builder}
)
"""Kind of encoder -> a function that imports it and gives its builder."""


def build_encoder(spec: Mapping[str, Any]) -> Encoder:
    """Build an encoder from plain settings, such as those in a model folder's config.

    Args:
        spec: `kind` is a key of ENCODERS; the rest are its builder's settings, e.g.
            `{"kind": "mert", "path": "m-a-p/MERT-v1-330M"}` or `{"kind": "musicnn"}`.

    Raises:
        ConfigError: for an unknown kind or settings that its builder doesn't have.
    """
    kind = str(spec.get("kind"))
    if kind not in ENCODERS:
        nearest = difflib.get_close_matches(kind, ENCODERS, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise ConfigError(f"the encoder kind is {kind!r}; expected one of {', '.join(ENCODERS)}{hint}")
    settings = {name: value for name, value in spec.items() if name != "kind"}
    builder = ENCODERS[kind]()
    signature = inspect.signature(builder)
    try:
        signature.bind(**settings)
    except TypeError as error:
        raise ConfigError(f"the encoder {kind}: {error}; its settings are {', '.join(signature.parameters)}") from None
    return builder(**settings)
