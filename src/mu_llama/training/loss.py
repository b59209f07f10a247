"""What training minimises: cross entropy of the answers' tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mu_llama.engine.torch.llama import MuLlama
from mu_llama.training.collate import IGNORED, Batch


def answer_loss(model: MuLlama, batch: Batch) -> Tensor:
    """Compute the mean cross entropy over all target tokens of a batch.

    Logits are computed only where there is a target. The mask isn't needed: attention is causal and the padding is on
    the right, so no target sees it, and without a mask attention takes its fastest path.

    Args:
        model: as `build_trainable` makes it.
        batch: on the model's device.

    Returns:
        A float32 scalar with gradients; without any target it is 0, with gradients of 0 rather than none, so that
        processes that train together stay in step.
    """
    # As in use: in float32, whatever the LLaMA computes in.
    with torch.autocast(batch.features.device.type, enabled=False):
        conditioning = model.condition(batch.features)
    output = model.llama.get_decoder()(**model.inputs(batch.ids, conditioning), use_cache=False)
    hidden: Tensor = output.last_hidden_state[:, -batch.ids.shape[1] :]  # (B, T, H), of the text
    head = model.llama.get_output_embeddings()
    targets = batch.labels[:, 1:]
    kept = targets != IGNORED
    if not kept.any():
        nothing: Tensor = head(hidden[:, :1]).float().mean() * 0
        return nothing
    logits = head(hidden[:, :-1][kept]).float()  # (B, T - 1, H) -> (targets, H) -> (targets, vocabulary)
    return nn.functional.cross_entropy(logits, targets[kept])


class AnswerLoss(nn.Module):
    """A model as what engines wrap: its forward pass is the loss, so DDP and FSDP see every parameter used.

    Args:
        model: as `build_trainable` makes it.
    """

    def __init__(self, model: MuLlama) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """Compute `answer_loss`."""
        return answer_loss(self.model, batch)
