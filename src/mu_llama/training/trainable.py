"""Build a model to train of its parts, LoRA unmerged, and give back its tensors under the names of files."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mu_llama.arrays import FLOAT32, to_torch
from mu_llama.checkpoints.lazy_tensor import LazyTensor, zeros
from mu_llama.checkpoints.lora import LINEARS, LORA_DOWN, LORA_UP, VALUE_LORA, low_rank_pairs, merged_llama
from mu_llama.checkpoints.spec import ModelSpec
from mu_llama.engine.torch.llama import MuLlama, build_mu_llama
from mu_llama.engine.torch.load import check_modules, finish, put
from mu_llama.engine.torch.quantize import nf4_fits, nf4_linear
from mu_llama.errors import CheckpointError, ConfigError
from mu_llama.progress import ProgressCallback, no_progress
from mu_llama.training.initialization import fresh_lora
from mu_llama.training.phases import BIASED_LINEARS, Phase, is_trained, plain_name, select_trainable


def build_trainable(
    parts: ModelSpec,
    *,
    phase: Phase,
    lora_rank: int = 16,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    lora_dtype: torch.dtype = torch.float32,
    nf4_base: bool = False,
    device: torch.device | None = None,
    progress: ProgressCallback = no_progress,
) -> MuLlama:
    """Read a model into memory, ready to train: the LLaMA frozen, LoRA beside it, what the phase trains unfrozen.

    Adapter, conditioner and what the phase trains are in float32. With a narrower LLaMA run it under `torch.autocast`,
    which is what brings float32 norms and biases together with narrow weights.

    Args:
        parts: what it is made of; existing LoRA, biases and norms are loaded.
        phase: what to train.
        lora_rank: of a LoRA that the phase adds; an existing one keeps its rank. The scale is 1, there is no dropout.
        seed: of a LoRA that the phase adds.
        dtype: of the frozen LLaMA.
        lora_dtype: of the LoRA.
        nf4_base: quantize the frozen linears of the LLaMA's layers to 4 bits (QLoRA, arXiv 2305.14314).
        device: where that is done, and where the quantized linears stay; None for the CPU.
        progress: follows the loading.

    Returns:
        The model on the CPU, in evaluation mode; weights were read one at a time.

    Raises:
        CheckpointError: if names or shapes don't fit; nothing is read before that is known.
        ConfigError: if peft is missing or a pattern of the phase matches nothing.
    """
    tuning = {**_added_tuning(parts, phase, lora_rank=lora_rank, seed=seed), **parts.tuning}
    pairs = low_rank_pairs(tuning, source=parts.source)
    if pairs and VALUE_LORA[0] in parts.adapter:
        raise CheckpointError(
            f"{parts.source}: its LLaMA holds a merged LoRA already and can't get another; expected an unmerged LLaMA: "
            "convert without --merge, or train the adapter alone"
        )
    plain = {name: value for name, value in tuning.items() if not name.endswith((LORA_DOWN, LORA_UP))}
    config, llama = merged_llama(parts.llama, plain, dtype=None, source=parts.source)
    lora = {name: value for name, value in tuning.items() if name not in plain}
    merged = parts.adapter.get(VALUE_LORA[0])
    value_rank = None if merged is None else merged.shape[1]
    model = build_mu_llama(config, parts.adapter_config, dtype=dtype, value_lora_rank=value_rank)
    _inject_lora(model.llama, {module: down.shape[0] for module, (down, _) in pairs.items()})
    tensors = {**parts.adapter, **{f"llama.{name}": value for name, value in (llama | lora).items()}}
    _fill(model, tensors, phase, dtype=dtype, lora_dtype=lora_dtype, source=parts.source, progress=progress)
    if nf4_base:
        _quantize_base(model.llama.get_decoder().layers, device or torch.device("cpu"))
    return model


def _quantize_base(layers: nn.Module, device: torch.device) -> None:
    """Exchange each frozen linear, also those inside a LoRA, for its NF4 kind; biases stay as they are."""
    frozen = [
        name
        for name, module in layers.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name and nf4_fits(module.weight)
        if not module.weight.requires_grad
    ]
    if not frozen:
        raise ConfigError(
            "precision.nf4_base finds no frozen linear of 64 columns and 32 rows or multiples; leave it out"
        )
    for name in frozen:
        parent, _, leaf = name.rpartition(".")
        linear = layers.get_submodule(name)
        assert isinstance(linear, nn.Linear), "chosen by type"
        setattr(layers.get_submodule(parent), leaf, nf4_linear(linear.to(device)))


def _added_tuning(parts: ModelSpec, phase: Phase, *, lora_rank: int, seed: int) -> dict[str, LazyTensor]:
    """Describe the LoRA and biases that a phase adds, for every linear; existing ones replace them."""
    weights = parts.llama.tensors
    modules = [
        name.removesuffix(".weight") for name in weights if name.endswith(tuple(f".{x}.weight" for x in LINEARS))
    ]
    added: dict[str, LazyTensor] = {}
    for module in modules:
        shape = weights[f"{module}.weight"].shape
        if phase.adds_lora and module + LORA_UP not in parts.tuning:
            added[module + LORA_DOWN], added[module + LORA_UP] = fresh_lora(module, shape, rank=lora_rank, seed=seed)
        if phase.adds_biases and module.endswith(BIASED_LINEARS) and f"{module}.bias" not in weights:
            added[f"{module}.bias"] = zeros(shape[:1], FLOAT32)
    return added


def _inject_lora(llama: nn.Module, ranks: Mapping[str, int]) -> None:
    present = {name for name, _ in llama.named_modules()}
    targets = [module for module in ranks if module in present]
    if not targets:
        return
    try:
        import peft
    except ImportError as error:
        raise ConfigError("a LoRA needs peft, which isn't installed: pip install 'mu-llama[train]'") from error
    rank = ranks[targets[0]]
    others = {re.escape(module): ranks[module] for module in targets if ranks[module] != rank}
    config = peft.LoraConfig(
        r=rank, lora_alpha=rank, rank_pattern=others, alpha_pattern=others, target_modules=targets, lora_dropout=0.0
    )
    peft.inject_adapter_in_model(config, llama, low_cpu_mem_usage=True)


def _fill(
    model: MuLlama,
    tensors: Mapping[str, LazyTensor],
    phase: Phase,
    *,
    dtype: torch.dtype,
    lora_dtype: torch.dtype,
    source: str,
    progress: ProgressCallback,
) -> None:
    names = {plain_name(name): name for name in model.state_dict()}
    placed = {names.get(name, name): stored for name, stored in tensors.items()}
    check_modules(model, placed, source=source)
    trained = set(select_trainable(model, phase))
    advance = progress("loading", sum(stored.size_bytes for stored in placed.values()))
    for name, stored in placed.items():
        if ".lora_" in name:
            width = lora_dtype
        else:
            width = torch.float32 if name in trained or not name.startswith("llama.") else dtype
        put(model, name, to_torch(stored.read()).to(width))
        advance(stored.size_bytes)
    finish(model)
    for name in trained:
        model.get_parameter(name).requires_grad_(True)


def checkpoint_activations(model: MuLlama) -> None:
    """Compute activations again in the backward pass instead of keeping them: slower, far less memory.

    Args:
        model: changed in place; acts in training mode only.
    """
    model.llama.activation_checkpointing_enable({"use_reentrant": False})
    # transformers lets the embeddings' output need gradients, so that layers below the first trained one would be
    # computed again and backwards for nothing: in `pretrain` every layer that the audio doesn't enter.
    model.llama.disable_input_require_grads()


def export_tensors(
    state: Mapping[str, Tensor], *, parts: ModelSpec, phase: Phase
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Take a trained model's tensors under the names that `ModelSpec` uses.

    Args:
        state: `model.state_dict()`, or what was unsharded of it; frozen weights of the LLaMA may be left out.
        parts: what the model was built of.
        phase: that it was trained in.

    Returns:
        Adapter and tuning, for `native.write_model_files`. The tuning is the LoRA, what the phase trained, and what
        the parts' tuning had.
    """
    adapter, tuning = {}, {}
    for name, value in state.items():
        plain = plain_name(name)
        inner = plain.removeprefix("llama.")
        if plain == inner:
            adapter[plain] = value.detach()
        elif plain.endswith((LORA_DOWN, LORA_UP)) or is_trained(plain, phase) or inner in parts.tuning:
            tuning[inner] = value.detach()
    return adapter, tuning
