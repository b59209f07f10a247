"""What tensors a model has by its sizes, and whether those of its files fit; nothing is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mu_llama.checkpoints.lazy_tensor import LazyTensor
from mu_llama.checkpoints.lora import VALUE_LORA, merged_adapter, merged_llama
from mu_llama.checkpoints.names import unknown_keys_message
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.errors import CheckpointError
from mu_llama.model.config import AdapterConfig, LlamaConfig

Shapes = dict[str, tuple[int, ...]]
OUTPUT_EMBEDDING = "lm_head.weight"


def llama_shapes(config: LlamaConfig) -> Shapes:
    """Shapes of a LLaMA's weights, under transformers' names."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, values = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
    shapes: Shapes = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
        OUTPUT_EMBEDDING: (config.vocab_size, hidden),
    }
    attention = {"q_proj": (queries, hidden), "k_proj": (values, hidden), "v_proj": (values, hidden)}
    attention["o_proj"] = (hidden, queries)
    feed_forward = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        for block, linears, has_bias in (
            ("self_attn", attention, config.attention_bias),
            ("mlp", feed_forward, config.mlp_bias),
        ):
            shapes |= {f"{prefix}{block}.{name}.weight": shape for name, shape in linears.items()}
            if has_bias:
                shapes |= {f"{prefix}{block}.{name}.bias": shape[:1] for name, shape in linears.items()}
    return shapes


def adapter_shapes(config: AdapterConfig, llama: LlamaConfig, *, value_lora_rank: int | None) -> Shapes:
    """Shapes of an adapter's tensors, under the names `adapter.*` and `conditioner.*`.

    Args:
        config: of the adapter.
        llama: of its LLaMA.
        value_lora_rank: of a LoRA that is merged into the conditioned value projections; None for none.
    """
    hidden, inner, num_layers = config.hidden_size, config.bridge_width, config.num_conditioned_layers
    features = (config.num_encoder_layers, config.encoder_width)
    shapes: Shapes = {
        "layer_mix.weight": (1, features[0], 1), "layer_mix.bias": (1,),
        "projection.weight": (hidden, features[1]), "projection.bias": (hidden,),
    }  # fmt: skip
    for block in range(config.num_blocks):
        shapes[f"blocks.{block}.norm.weight"] = (hidden,)
        for name, shape in {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            if config.legacy_bridge:
                shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
        if config.legacy_bridge:
            shapes[f"blocks.{block}.norm.bias"] = (hidden,)
    if config.input_scaling == "standardise":
        shapes |= {"feature_mean": features, "feature_deviation": features}
    if config.num_audio_tokens:
        num_choices = config.num_choices
        num_names = config.num_audio_tokens - num_choices
        shapes |= {
            "tokens.reading.weight": (num_names, hidden), "tokens.reading.bias": (num_names,),
            "tokens.names": (num_names, hidden), "tokens.present": (hidden,), "tokens.absent": (hidden,),
        }  # fmt: skip
        if num_choices:
            shapes |= {
                "tokens.kinds": (num_choices, hidden), "tokens.sharpness": (num_choices,),
                "tokens.members": (num_choices, num_names),
            }  # fmt: skip
    shapes = {f"adapter.{name}": shape for name, shape in shapes.items()}
    shapes |= {"conditioner.prefix": (num_layers, hidden), "conditioner.gate": (num_layers, config.num_heads)}
    if value_lora_rank is not None:
        rows = llama.num_key_value_heads * llama.head_dim
        shapes[VALUE_LORA[0]] = (num_layers, value_lora_rank, hidden)
        shapes[VALUE_LORA[1]] = (num_layers, rows, value_lora_rank)
    return shapes


def check_parts(parts: ModelSpec) -> None:
    """Check that a model's files hold the tensors that its sizes ask for.

    Raises:
        CheckpointError: naming unexpected or missing keys, or a shape that doesn't fit.
    """
    config = parts.llama.config
    if parts.llama.graph is None:  # a graph has its own sizes, which are compared when it is opened
        config, llama = merged_llama(parts.llama, parts.tuning, dtype=None, source=parts.source)
        optional = (OUTPUT_EMBEDDING,) if config.tie_word_embeddings else ()
        source = parts.source if parts.tuning else parts.llama.source
        check_fit(llama_shapes(config), llama, optional=optional, source=source)
    adapter = merged_adapter(parts)
    rank = adapter[VALUE_LORA[0]].shape[1] if VALUE_LORA[0] in adapter else None
    expected = adapter_shapes(parts.adapter_config, config, value_lora_rank=rank)
    check_fit(expected, adapter, source=parts.source)


def check_fit(
    expected: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, LazyTensor],
    *,
    optional: Collection[str] = (),
    source: object,
) -> None:
    """Compare names and shapes, before anything is read.

    Args:
        expected: shapes that the model has.
        tensors: those of its files, under the same names.
        optional: names that may be left out.
        source: the file or folder to name in an error.

    Raises:
        CheckpointError: naming unexpected or missing keys, or a shape that doesn't fit.
    """
    unknown = tensors.keys() - expected.keys()
    if unknown:
        raise CheckpointError(unknown_keys_message(source, unknown, expected))
    missing = sorted(expected.keys() - tensors.keys() - set(optional))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{source}: {missing[0]!r}{more} missing; expected all weights of the model")
    for name, value in tensors.items():
        if value.shape != expected[name]:
            raise CheckpointError(f"{source}: {name!r} has shape {value.shape}; expected {expected[name]}")
