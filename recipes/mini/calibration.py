"""How sure the adapter may be, and what it hears beyond doubt.

An adapter is surer of a soundfont that it knows than of another. So one of them is kept from it. The temperature (Guo
et al., 2017, arXiv:1706.04599) by which its readings of that one come out right tells the language model, through the
audio tokens, how sure it is; and the language model is asked more about what that one plays, so that it learns how far
to trust the readings.
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

UNHEARD = PATCHES
"""The soundfont that the adapter isn't taught."""
FEWEST = 50
"""Clips in it that are needed to measure anything."""
USUAL = 3.0
"""Temperature where there are fewer."""
SURE = 0.9
"""Probability, by that temperature, from which a label is heard beyond doubt."""
_TEMPERATURES = [1 + step / 4 for step in range(37)]


def fonts_of(work: Path) -> dict[str, str | None]:
    """The soundfont of each clip; None for recordings."""
    paths = sorted((work / "clips").glob("?.jsonl"))
    return {clip["id"]: clip["soundfont"] for path in paths for clip in read_lines(path)}


def by_font(examples: Examples, fonts: Mapping[str, str | None]) -> tuple[Examples, Examples]:
    """The examples that the adapter is taught, and those that are kept from it."""
    rows = range(len(examples.ids))
    unheard = {row for row in rows if fonts[examples.ids[row]] == UNHEARD}
    return kept(examples, [row for row in rows if row not in unheard]), kept(examples, sorted(unheard))


def kept(examples: Examples, rows: Sequence[int]) -> Examples:
    """Some of the examples."""
    return replace(
        examples, features=examples.features[list(rows)], answers=examples.answers[list(rows)],
        sources=[examples.sources[row] for row in rows], ids=[examples.ids[row] for row in rows],
    )  # fmt: skip


@torch.no_grad()
def fitting_temperature(adapter: AudioAdapter, held: Examples) -> float:
    """The temperature by which readings of examples that an adapter wasn't taught are likeliest; `USUAL` of too few."""
    if len(held.ids) < FEWEST:
        return USUAL
    logits, weights, answers = read_labels(adapter, held.features), weights_of(held), held.answers.nan_to_num()

    def loss(temperature: float) -> float:
        losses = nn.functional.binary_cross_entropy_with_logits(logits / temperature, answers, reduction="none")
        return float((losses * weights).sum() / weights.sum())

    return min(_TEMPERATURES, key=loss)


@torch.no_grad()
def soften(adapter: AudioAdapter, temperature: float, examples: Examples) -> None:
    """Divide the readings by a temperature, and spread yes and no apart, so that usual tokens stay where they were."""
    tokens = adapter.tokens
    assert tokens is not None, "made with them"
    usual = read_labels(adapter, examples.features[:2000]).abs().median()
    factor = torch.tanh(usual / 2) / torch.tanh(usual / temperature / 2)  # 2 sigmoid(x) - 1 = tanh(x / 2)
    middle, half = (tokens.present + tokens.absent) / 2, (tokens.present - tokens.absent) / 2
    tokens.present.copy_(middle + factor * half)
    tokens.absent.copy_(middle - factor * half)
    tokens.reading.weight.div_(temperature)
    tokens.reading.bias.div_(temperature)
    tokens.sharpness.mul_(temperature)  # which is likeliest doesn't change


def clear_words(labels: Mapping[str, bool], heard: Mapping[str, float]) -> list[str]:
    """Labels that are heard beyond doubt: those that hold by name, drums and singing also as "no drums".

    Example:
        >>> clear_words({"piano": True, "harp": True, "drums": False}, {"piano": 0.95, "harp": 0.6, "drums": 0.05})
        ['piano', 'no drums']
    """
    there = [word for word, holds in labels.items() if holds and heard.get(word, 0.0) >= SURE]
    missing = [f"no {word}" for word in ("drums", "singing") if labels.get(word) is False]
    return there + [word for word in missing if heard.get(word.removeprefix("no "), 1.0) <= 1 - SURE]


@torch.no_grad()
def write_clear(work: Path, adapter: AudioAdapter, examples: Sequence[Examples]) -> None:
    """Write `clear.jsonl`: what is heard beyond doubt of each track, in its own version."""
    heard: dict[str, dict[str, float]] = {}
    for own in examples:
        for name, row in zip(own.ids, torch.sigmoid(read_labels(adapter, own.features)).tolist(), strict=True):
            heard.setdefault(name, dict(zip(own.words, row, strict=True)))  # the first is the unchanged one
    tracks = [Track.from_dict(row) for path in sorted(work.glob("tracks.*.jsonl")) for row in read_lines(path)]
    rows = [
        {"id": track.id, "clear": clear_words(labels_of(track), heard[track.id])}
        for track in tracks
        if track.id in heard
    ]
    write_whole(work / "clear.jsonl", map(to_line, rows))
