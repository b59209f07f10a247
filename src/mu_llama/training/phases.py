"""The phases of training: which parameters each trains, as patterns over parameter names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mu_llama.errors import ConfigError

if TYPE_CHECKING:  # settings look phases up, and load no torch
    from torch import nn

_ADAPTER = ("adapter.*", "conditioner.prefix", "conditioner.gate")
_LORA = ("llama.*.lora_A.weight", "llama.*.lora_B.weight")
_NORMS = ("llama.*norm.weight",)
BIASED_LINEARS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
"""The linears whose biases the published model trains; key and value projections have none."""


@dataclass(frozen=True)
class Phase:
    """One phase of training."""

    name: str
    """Key in `PHASES`."""
    trains: tuple[str, ...]
    """Patterns (`*` is any text) over parameter names as `plain_name` writes them; the rest is frozen."""
    adds_lora: bool = False
    """Whether linears of the LLaMA that have no LoRA get one."""
    adds_biases: bool = False
    """Whether the linears of `BIASED_LINEARS` that have no bias get one of zeros."""

    @property
    def trains_adapter(self) -> bool:
        """Whether anything of the adapter or its conditioner is trained."""
        return self._trains_inside("adapter.") or self._trains_inside("conditioner.")

    @property
    def trains_llama(self) -> bool:
        """Whether anything inside the LLaMA is trained: LoRA, biases or norms."""
        return self._trains_inside("llama.")

    def _trains_inside(self, prefix: str) -> bool:
        starts = [pattern.partition("*")[0] for pattern in self.trains]
        return any(start.startswith(prefix) or prefix.startswith(start) for start in starts)


PRETRAIN = Phase("pretrain", _ADAPTER)
FINETUNE = Phase(
    "finetune",
    (*_NORMS, *(f"llama.*.{linear}.bias" for linear in BIASED_LINEARS), *_LORA),
    adds_lora=True,
    adds_biases=True,
)
JOINT = Phase("joint", (*_ADAPTER, *_LORA), adds_lora=True)
LORA = Phase("lora", _LORA, adds_lora=True)

PHASES = {phase.name: phase for phase in (PRETRAIN, FINETUNE, JOINT, LORA)}
"""The published recipe is `pretrain` and then `finetune`; `joint` trains adapter and LoRA together, and `lora`
leaves a trained adapter unchanged."""


def phase_by_name(name: str) -> Phase:
    """Look a phase up.

    Raises:
        ConfigError: if there is no phase of that name.

    Example:
        >>> phase_by_name("joint").adds_lora
        True
    """
    try:
        return PHASES[name]
    except KeyError:
        raise ConfigError(f"phase {name!r} is unknown; expected one of: {', '.join(PHASES)}") from None


def plain_name(name: str) -> str:
    """Undo what peft does to a name: the name that a parameter has in files and in patterns.

    Example:
        >>> plain_name("llama.model.layers.0.mlp.up_proj.lora_A.default.weight")
        'llama.model.layers.0.mlp.up_proj.lora_A.weight'
    """
    return name.replace(".base_layer.", ".").replace(".default.", ".")


def is_trained(name: str, phase: Phase) -> bool:
    """Whether a phase trains the parameter of this plain name."""
    return any(fnmatchcase(name, pattern) for pattern in phase.trains)


def select_trainable(model: nn.Module, phase: Phase) -> list[str]:
    """List the parameters that a phase trains; nothing is changed.

    Args:
        model: a `MuLlama`, with or without LoRA by peft, on any device, the meta device too.
        phase: what to train.

    Returns:
        Names as in `model.named_parameters()`, in that order.

    Raises:
        ConfigError: for a pattern that matches no parameter, naming the nearest ones.
    """
    names = {plain_name(name): name for name, _ in model.named_parameters()}
    for pattern in phase.trains:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = ", ".join(difflib.get_close_matches(pattern, names, n=3, cutoff=0.0))
            raise ConfigError(
                f"phase {phase.name!r} trains {pattern!r}, which matches no parameter of this model; nearest: {near}"
            )
    empty = {name for name, value in model.named_parameters() if value.numel() == 0}
    return [name for plain, name in names.items() if is_trained(plain, phase) and name not in empty]
