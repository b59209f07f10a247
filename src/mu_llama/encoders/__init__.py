"""Audio encoders: a stretch of sound becomes a few vectors. Importing this loads no torch."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mu_llama.encoders import mert, musicnn
from mu_llama.encoders.protocol import EncoderKind
from mu_llama.errors import ConfigError

if TYPE_CHECKING:
    from mu_llama.encoders.protocol import Encoder

ENCODERS: dict[str, EncoderKind] = {kind.name: kind for kind in (mert.KIND, musicnn.KIND)}
"""Every kind of encoder, by name."""


def encoder_kind(spec: Mapping[str, Any]) -> EncoderKind:
    """Look up the kind that an encoder's settings name.

    Raises:
        ConfigError: for an unknown kind.
    """
    name = str(spec.get("kind"))
    if name not in ENCODERS:
        nearest = difflib.get_close_matches(name, ENCODERS, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise ConfigError(f"the encoder kind is {name!r}; expected one of {', '.join(ENCODERS)}{hint}")
    return ENCODERS[name]


def build_encoder(spec: Mapping[str, Any], *, device: str | None = None) -> Encoder:
    """Build an encoder from plain settings, such as those in a model folder's config.

    Args:
        spec: `kind` is a key of ENCODERS; the rest are its builder's settings, e.g.
            `{"kind": "mert", "path": "m-a-p/MERT-v1-330M"}` or `{"kind": "musicnn"}`.
        device: where it computes, if it is of a kind that has a choice; None leaves that to `spec`.

    Raises:
        ConfigError: for an unknown kind or settings that its builder doesn't have.
    """
    kind = encoder_kind(spec)
    settings = {name: value for name, value in spec.items() if name != "kind"}
    builder = kind.builder()
    signature = inspect.signature(builder)
    if device is not None and "device" in signature.parameters:
        settings["device"] = device
    try:
        signature.bind(**settings)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        raise ConfigError(f"the encoder {kind.name}: {error}; its settings are {names}") from None
    return builder(**settings)
