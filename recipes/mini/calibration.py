"""Calibrate the adapter's probabilities on a held-out soundfont, and list the labels of which it is certain.

An adapter is more confident on soundfonts that it was trained on than on others. So one of them is held out. The
temperature (Guo et al., 2017, arXiv:1706.04599) that calibrates its predictions on that one is built into the audio
tokens, which give the language model the calibrated probabilities; and more training questions are about clips in that
soundfont, so that the language model learns how far to trust them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mu_llama.files import read_lines, to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.model.adapter import AudioAdapter
from recipes.mini.examples import Examples, read_labels, weights_of
from recipes.mini.labels import labels_of
from recipes.mini.plans import PATCHES

HELD_OUT_FONT = PATCHES
"""The soundfont that the adapter isn't trained on."""
MIN_CLIPS = 50
"""Clips in it that fitting a temperature needs."""
DEFAULT_TEMPERATURE = 3.0
"""Temperature where there are fewer."""
CERTAIN = 0.9
"""Calibrated probability from which a label counts as certain."""
_TEMPERATURES = [1 + step / 4 for step in range(37)]


def fonts_of(work: Path) -> dict[str, str | None]:
    """The soundfont of each clip; None for recordings."""
    paths = sorted((work / "clips").glob("?.jsonl"))
    return {clip["id"]: clip["soundfont"] for path in paths for clip in read_lines(path)}


def by_font(examples: Examples, fonts: Mapping[str, str | None]) -> tuple[Examples, Examples]:
    """Split examples into those that the adapter is trained on, and those of the held-out soundfont."""
    rows = range(len(examples.ids))
    rows_held_out = {row for row in rows if fonts[examples.ids[row]] == HELD_OUT_FONT}
    return select(examples, [row for row in rows if row not in rows_held_out]), select(examples, sorted(rows_held_out))


def select(examples: Examples, rows: Sequence[int]) -> Examples:
    """The examples of some rows."""
    return replace(
        examples, features=examples.features[list(rows)], answers=examples.answers[list(rows)],
        sources=[examples.sources[row] for row in rows], ids=[examples.ids[row] for row in rows],
    )  # fmt: skip


@torch.no_grad()
def fit_temperature(adapter: AudioAdapter, examples: Examples) -> float:
    """The temperature that makes the labels of held-out examples likeliest; the default where there are too few."""
    if len(examples.ids) < MIN_CLIPS:
        return DEFAULT_TEMPERATURE
    logits, weights, answers = (
        read_labels(adapter, examples.features),
        weights_of(examples),
        examples.answers.nan_to_num(),
    )

    def loss(temperature: float) -> float:
        losses = nn.functional.binary_cross_entropy_with_logits(logits / temperature, answers, reduction="none")
        return float((losses * weights).sum() / weights.sum())

    return min(_TEMPERATURES, key=loss)


@torch.no_grad()
def apply_temperature(adapter: AudioAdapter, temperature: float, examples: Examples) -> None:
    """Divide the logits by a temperature, and spread yes and no apart, so that typical tokens stay where they were."""
    tokens = adapter.tokens
    assert tokens is not None, "made with them"
    typical = read_labels(adapter, examples.features[:2000]).abs().median()
    factor = torch.tanh(typical / 2) / torch.tanh(typical / temperature / 2)  # 2 sigmoid(x) - 1 = tanh(x / 2)
    middle, half = (tokens.present + tokens.absent) / 2, (tokens.present - tokens.absent) / 2
    tokens.present.copy_(middle + factor * half)
    tokens.absent.copy_(middle - factor * half)
    tokens.reading.weight.div_(temperature)
    tokens.reading.bias.div_(temperature)
    tokens.sharpness.mul_(temperature)  # which is likeliest doesn't change


def certain_words(labels: Mapping[str, bool], probabilities: Mapping[str, float]) -> list[str]:
    """Labels of which the adapter is certain: those that hold by name, drums and singing also as "no drums".

    Example:
        >>> certain_words({"piano": True, "harp": True, "drums": False}, {"piano": 0.95, "harp": 0.6, "drums": 0.05})
        ['piano', 'no drums']
    """
    present = [word for word, holds in labels.items() if holds and probabilities.get(word, 0.0) >= CERTAIN]
    missing = [f"no {word}" for word in ("drums", "singing") if labels.get(word) is False]
    return present + [word for word in missing if probabilities.get(word.removeprefix("no "), 1.0) <= 1 - CERTAIN]


@torch.no_grad()
def write_certain_words(work: Path, adapter: AudioAdapter, splits: Sequence[Examples]) -> None:
    """Write `clear.jsonl`: the labels of which the adapter is certain, for each track in its unchanged version."""
    probabilities: dict[str, dict[str, float]] = {}
    for examples in splits:
        for name, row in zip(
            examples.ids, torch.sigmoid(read_labels(adapter, examples.features)).tolist(), strict=True
        ):
            probabilities.setdefault(
                name, dict(zip(examples.words, row, strict=True))
            )  # the first is the unchanged one
    tracks = [Track.from_dict(row) for path in sorted(work.glob("tracks.*.jsonl")) for row in read_lines(path)]
    rows = [
        {"id": track.id, "clear": certain_words(labels_of(track), probabilities[track.id])}
        for track in tracks
        if track.id in probabilities
    ]
    write_whole(work / "clear.jsonl", map(to_line, rows))
