"""Ablations: how well an adapter predicts the validation labels without parts of the features or some soundfonts.

Writes benchmarks/results/mini_labels.json. Run: python -m recipes.mini.ablate --work DIR
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.embedded import PACKAGED, provide_llama
from mu_llama.checkpoints.load import read_llama
from mu_llama.checkpoints.spec import LlamaSpec
from recipes.mini.calibration import fonts_of, select
from recipes.mini.encoder import FEATURES
from recipes.mini.examples import Examples, read_examples, words_of
from recipes.mini.plans import is_again
from recipes.mini.pretrain_adapter import LLAMA, build_adapter, scores, train_adapter

OUT = Path(__file__).parents[2] / "benchmarks" / "results" / "mini_labels.json"
_POOLED, _HIDDEN, _TAGS = (
    tuple(name for name in FEATURES if name.endswith(kind)) for kind in ("pooled", "hidden", "tags")
)
ClipFilter = Callable[[str, str | None], bool]
"""Whether a clip counts, by its id and soundfont."""


def _any(_: str, __: str | None) -> bool:
    return True


def _not(font: str) -> ClipFilter:
    return lambda _, played: played != font


def _only(font: str) -> ClipFilter:
    return lambda _, played: played == font


@dataclass(frozen=True)
class Variant:
    """What is left out."""

    zeroed: Sequence[str] = ()
    """Of the features."""
    trains_on: ClipFilter = _any
    tested_on: ClipFilter = _any


VARIANTS: Mapping[str, Variant] = {
    "everything": Variant(),
    "without pooled": Variant(_POOLED),
    "without tag logits": Variant(_TAGS),
    "without the last hidden layer": Variant(_HIDDEN),
    "pooled alone": Variant((*_HIDDEN, *_TAGS)),
    "each training clip in one soundfont": Variant((), lambda name, _: not is_again(name)),
    "FluidR3_GM held out": Variant((), _not("FluidR3_GM"), _only("FluidR3_GM")),
    "FluidR3_GM held out, without pooled": Variant(_POOLED, _not("FluidR3_GM"), _only("FluidR3_GM")),
    "FluidR3_GM and Sonivox held out": Variant(
        (), lambda _, font: font not in ("FluidR3_GM", "Sonivox"), _only("FluidR3_GM")
    ),
}  # fmt: skip


def without(examples: Examples, fonts: Mapping[str, str | None], keeps: ClipFilter, zeroed: Sequence[str]) -> Examples:
    """The examples that count, with parts of their features set to zero."""
    selected = select(examples, [row for row, name in enumerate(examples.ids) if keeps(name, fonts[name])])
    for name in zeroed:
        selected.features[..., FEATURES[name]] = 0
    return selected


def ablate(work: Path, out: Path, names: Sequence[str]) -> None:
    """Train an adapter for each variant and write how well it predicts the labels."""
    llama: LlamaSpec = read_llama(provide_llama(PACKAGED[LLAMA], home_folder(), report=print))
    words = words_of(work)
    fonts = fonts_of(work)
    train, validation = (read_examples(work, split, words, with_changed=split == "train") for split in ("train", "val"))
    results = {}
    for name in names:
        variant = VARIANTS[name]
        subset = without(train, fonts, variant.trains_on, variant.zeroed)
        adapter = build_adapter(llama, subset)
        train_adapter(adapter, subset)
        tested = without(validation, fonts, variant.tested_on, variant.zeroed)
        results[name] = {"examples": len(subset.ids), "tested": len(tested.ids), **scores(adapter, tested)}
        print(name, json.dumps(results[name]), flush=True)
    result = {"command": "python -m recipes.mini.ablate", "variants": results,
              "what": "balanced accuracy of labels in validation, %, by group of labels"}  # fmt: skip
    text = json.dumps(result, indent=2)
    out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    ablate(arguments.work, arguments.out, arguments.only)
