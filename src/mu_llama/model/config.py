"""The sizes of an adapter, read from its weights or its config file, and those of a LLaMA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from mu_llama.errors import CheckpointError, ConfigError

# Epsilon of the bridge's own norms; the LLaMA's come from its params.json.
RMS_EPSILON = 1e-6
LAYER_NORM_EPSILON = 1e-5
# compat: in `w / (w + epsilon)`, the published weighting of audio inputs, so that weight 1 gives a norm of 0.999999.
WEIGHT_EPSILON = 1e-6

_MAY_BE_ZERO = ("num_conditioned_layers", "num_audio_tokens", "num_choices")


@dataclass(frozen=True)
class AdapterConfig:
    """Every size the adapter needs; nothing is assumed."""

    num_encoder_layers: int
    """L: hidden states the encoder gives."""
    encoder_width: int
    """D: width of each."""
    hidden_size: int
    """H: width of the LLaMA and of the audio vector."""
    num_conditioned_layers: int
    """Q: how many of the last LLaMA layers are conditioned; 0 where audio tokens stand before the prompt instead."""
    num_heads: int
    """Attention heads of the LLaMA, one gate each."""
    bridge_width: int
    """Inner width of the bridge blocks."""
    num_blocks: int = 3
    """How many bridge blocks."""
    legacy_bridge: bool = False
    """LayerNorm and biased linears in the bridge instead of RMSNorm without bias."""
    input_scaling: Literal["none", "standardise"] = "none"
    """`standardise`: a stored mean is subtracted from the features, then they are divided by a stored standard
    deviation."""
    num_audio_tokens: int = 0
    """N: tokens before the prompt that describe the sound; 0 where layers are conditioned instead."""
    num_choices: int = 0
    """How many of them, the last ones, say which of several things is likeliest."""

    def __post_init__(self) -> None:
        bad = [
            f"{name}={value}"
            for name, value in vars(self).items()
            if isinstance(value, int) and not isinstance(value, bool) and value < (name not in _MAY_BE_ZERO)
        ]
        if not bad and (self.num_conditioned_layers > 0) == (self.num_audio_tokens > 0):
            bad.append(
                f"num_conditioned_layers={self.num_conditioned_layers} with num_audio_tokens={self.num_audio_tokens} "
                "(expected one of them)"
            )
        if self.num_choices and self.num_choices >= self.num_audio_tokens:
            bad.append(f"num_choices={self.num_choices} of num_audio_tokens={self.num_audio_tokens} (expected fewer)")
        if self.input_scaling not in ("none", "standardise"):
            bad.append(f"input_scaling={self.input_scaling!r} (expected none or standardise)")
        if bad:
            raise ConfigError(f"adapter sizes must be positive; came: {', '.join(bad)}")


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_token(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


_FIELD_CHECKS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "head_dim", "max_position_embeddings"),
            lambda value: _is_positive(value) and isinstance(value, int),
        ),
        **dict.fromkeys(("rms_norm_eps", "rope_theta"), _is_positive),
        **dict.fromkeys(
            ("attention_bias", "mlp_bias", "tie_word_embeddings"), lambda value: isinstance(value, bool)
        ),
        **dict.fromkeys(("bos_token_id", "pad_token_id"), _is_token),
        "eos_token_id": lambda value: all(map(_is_token, value if isinstance(value, tuple) else (value,))),
        "rope_scaling": lambda value: value is None or isinstance(value, Mapping),
    }
)  # fmt: skip
"""What each field of a `LlamaConfig` has to be."""
_SCALING_NUMBERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "linear": ("factor",),
        "dynamic": ("factor",),
        "yarn": ("factor", "original_max_position_embeddings"),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    }
)
"""Each way of scaling rotary angles, with the numbers that it needs; it may have more."""
_FIXED = MappingProxyType({"hidden_act": "silu", "partial_rotary_factor": 1.0})
"""What config.json may say only one way, since every LLaMA has it so."""
_PUBLISHED_SIZES = MappingProxyType(
    {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
     "num_attention_heads": 32}
)  # fmt: skip
"""What transformers takes where config.json leaves a size out: LLaMA-7B's."""


@dataclass(frozen=True)
class LlamaConfig:
    """Everything besides the weights that decides what a LLaMA computes; names and defaults are transformers'."""

    vocab_size: int
    """Rows of the embeddings."""
    hidden_size: int
    """H: width."""
    intermediate_size: int
    """Inner width of the feed-forward networks."""
    num_hidden_layers: int
    """How many layers."""
    num_attention_heads: int
    """Query heads."""
    num_key_value_heads: int
    """Key and value heads, each shared by as many query heads."""
    head_dim: int
    """Width of one head."""
    max_position_embeddings: int = 2048
    """Longest text in tokens."""
    rms_norm_eps: float = 1e-6
    """Epsilon of every RMSNorm."""
    rope_theta: float = 10000.0
    """Base of the rotary angles."""
    rope_scaling: Mapping[str, Any] | None = None
    """How rotary angles are scaled: `rope_type` (linear, dynamic, yarn or llama3) and its numbers, or None."""
    attention_bias: bool = False
    """Whether the linears of attention have biases."""
    mlp_bias: bool = False
    """Whether those of the feed-forward networks have."""
    tie_word_embeddings: bool = False
    """Whether the output embedding is the input embedding."""
    bos_token_id: int | None = 1
    """Begins a text."""
    eos_token_id: int | tuple[int, ...] | None = 2
    """Ends one; several where any of them does."""
    pad_token_id: int | None = None
    """Fills up rows of a batch; no part of what is computed here."""

    def __post_init__(self) -> None:
        values = vars(self)
        bad = [f"{name}={values[name]!r}" for name, fits in _FIELD_CHECKS.items() if not fits(values[name])]
        bad = bad or self._misfits()
        if bad:
            raise ConfigError(f"a LLaMA can't have {', '.join(bad)}")

    def _misfits(self) -> list[str]:
        heads, scaling = self.num_attention_heads, self.rope_scaling
        misfits = []
        if self.hidden_size % heads:
            misfits.append(f"hidden_size={self.hidden_size}, which is no multiple of num_attention_heads={heads}")
        if heads % self.num_key_value_heads:
            misfits.append(f"{heads} query heads over num_key_value_heads={self.num_key_value_heads}")
        if self.head_dim % 2:
            misfits.append(f"heads of odd width {self.head_dim}")
        if scaling is not None:
            needed = _SCALING_NUMBERS.get(str(scaling.get("rope_type")))
            if needed is None:
                misfits.append(f"rope_type={scaling.get('rope_type')!r} (expected {', '.join(_SCALING_NUMBERS)})")
            bad = [name for name in needed or () if not _is_positive(scaling.get(name))]
            misfits += [f"{name}={scaling.get(name)!r}" for name in bad]
            low, high = scaling.get("low_freq_factor", 0), scaling.get("high_freq_factor", 1)
            if not bad and not low < high:
                misfits.append(f"high_freq_factor={high} (expected one above low_freq_factor={low})")
        return misfits

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a text; empty where none is named."""
        ends = self.eos_token_id
        return ends if isinstance(ends, tuple) else () if ends is None else (ends,)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, source: str = "config.json") -> LlamaConfig:
        """Read the content of a config.json that any version of transformers wrote.

        Args:
            content: the rotary angles are in `rope_parameters` as of transformers 5, before in `rope_theta` and
                `rope_scaling`.
            source: the file to name in errors.

        Raises:
            CheckpointError: if it describes another kind of model, or one that can't be.
        """
        if content.get("model_type") != "llama":
            raise CheckpointError(f"{source}: model_type is {content.get('model_type')!r}; expected 'llama'")
        try:
            rope = _rotary_angles(content)
            for name, only in _FIXED.items():
                value = rope.pop(name, content.get(name))
                if value not in (only, None):
                    raise ConfigError(f"a LLaMA can't have {name}={value!r} (expected {only!r})")
            given = {name: content[name] for name in cls.__dataclass_fields__ if content.get(name) is not None}
            nameless = {name: None for name in ("bos_token_id", "eos_token_id") if name in content}
            sizes = {**_PUBLISHED_SIZES, **nameless, **given, "rope_theta": rope.pop("rope_theta")}
            sizes.setdefault("num_key_value_heads", sizes["num_attention_heads"])
            sizes.setdefault("head_dim", sizes["hidden_size"] // sizes["num_attention_heads"])
            if isinstance(sizes.get("eos_token_id"), list):
                sizes["eos_token_id"] = tuple(sizes["eos_token_id"])
            return cls(**{**sizes, "rope_scaling": None if rope["rope_type"] == "default" else rope})
        except (ConfigError, TypeError, ZeroDivisionError) as error:
            raise CheckpointError(f"{source}: {error}; get it again") from error

    def to_json(self) -> dict[str, Any]:
        """Write the content of a config.json that transformers 4 and 5 read."""
        content: dict[str, Any] = {"model_type": "llama", "hidden_act": _FIXED["hidden_act"], **vars(self)}
        scaling = {"rope_type": "default"} if self.rope_scaling is None else dict(self.rope_scaling)
        content["rope_scaling"] = None if self.rope_scaling is None else scaling
        content["rope_parameters"] = {**scaling, "rope_theta": self.rope_theta}
        if isinstance(self.eos_token_id, tuple):
            content["eos_token_id"] = list(self.eos_token_id)
        return content


def _rotary_angles(content: Mapping[str, Any]) -> dict[str, Any]:
    """Give `rope_type`, `rope_theta` and the numbers of the type, in whichever layout they are."""
    given = content.get("rope_scaling") or content.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"a LLaMA can't have rotary angles as {given!r} (expected an object)")
    rope = {name: value for name, value in given.items() if name != "type"}
    rope.setdefault("rope_type", given.get("type", "default"))
    theta = content.get("rope_theta")
    rope.setdefault("rope_theta", 10000.0 if theta is None else theta)
    if "original_max_position_embeddings" in _SCALING_NUMBERS.get(str(rope["rope_type"]), ()):
        rope.setdefault("original_max_position_embeddings", content.get("max_position_embeddings", 2048))
    return rope
