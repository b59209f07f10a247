"""The names of MERT's tensors, fitted to those of transformers' HubertModel."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

import torch

from mu_llama.errors import CheckpointError

PREFIXES = ("mert_model.", "hubert.")
"""What may stand before every name: the first in MU-LLaMA checkpoints, the second in models with a head."""

RENAMED = (
    ("encoder.pos_conv_embed.conv.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    ("encoder.pos_conv_embed.conv.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
)
"""Old and new spelling of the positional convolution's weight norm; published files have the old one."""

MAY_BE_EXTRA = frozenset(
    {
        "masked_spec_embed",
        "label_embs_concat",
        "final_proj.weight",
        "final_proj.bias",
        "lm_head.weight",
        "lm_head.bias",
    }
)
"""Names that serve training only (SpecAugment's mask, prediction heads) and are left out.

No name may be missing: what HubertModel has here, all of it shapes the features.
"""


def fit_names(tensors: Mapping[str, torch.Tensor], *, source: str) -> dict[str, torch.Tensor]:
    """Bring names to HubertModel's spelling: no prefix, new weight norm, no training-only tensors.

    Raises:
        CheckpointError: if two of the given names mean the same tensor.
    """
    origins: dict[str, str] = {}
    fitted: dict[str, torch.Tensor] = {}
    renamed = dict(RENAMED)
    for given, tensor in tensors.items():
        name = next((given.removeprefix(prefix) for prefix in PREFIXES if given.startswith(prefix)), given)
        if name in MAY_BE_EXTRA:
            continue
        name = renamed.get(name, name)
        if name in fitted:
            raise CheckpointError(f"{source} holds {origins[name]} and {given}, two spellings of {name}: remove one")
        origins[name] = given
        fitted[name] = tensor
    return fitted


def check_fit(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Compare names and shapes with those of the model that config.json describes.

    Raises:
        CheckpointError: naming each tensor that is missing, unexpected or of another shape.
    """
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    problems = [f"lacks {_with_nearest(name, unexpected)}" for name in missing]
    problems += [f"holds the unknown {_with_nearest(name, expected)}" for name in unexpected]
    problems += [
        f"holds {name} of shape {tuple(tensor.shape)} where the config asks for {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"{source} doesn't fit its config: it {shown}{more}. Take config.json and weights from one model"
        )


def _with_nearest(name: str, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=2)
    return f"{name} (nearest: {', '.join(nearest)})" if nearest else name
