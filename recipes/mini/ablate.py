"""What the parts of the features and the soundfonts are worth: the labels read in validation, with some left out.

Writes benchmarks/results/mini_labels.json. Run: python -m recipes.mini.ablate --work DIR
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mu_llama.checkpoints.embedded import PACKAGED, provide_llama
from mu_llama.checkpoints.llama_source import read_llama
from mu_llama.checkpoints.spec import LlamaSpec
from mu_llama.devices import home_folder
from recipes.mini.calibration import fonts_of, kept
from recipes.mini.encoder import FEATURES
from recipes.mini.examples import Examples, read_examples, words_of
from recipes.mini.plans import is_again
from recipes.mini.pretrain_adapter import LLAMA, scores, teach, untrained

OUT = Path(__file__).parents[2] / "benchmarks" / "results" / "mini_labels.json"
_POOLED, _HIDDEN, _TAGS = (
    tuple(name for name in FEATURES if name.endswith(kind)) for kind in ("pooled", "hidden", "tags")
)
Keeps = Callable[[str, str | None], bool]
"""Whether a clip counts, by its id and soundfont."""


def _any(_: str, __: str | None) -> bool:
    return True


def _not(font: str) -> Keeps:
    return lambda _, played: played != font


def _only(font: str) -> Keeps:
    return lambda _, played: played == font


@dataclass(frozen=True)
class Variant:
    """What is left out."""

    silenced: Sequence[str] = ()
    """Of the features."""
    trains_on: Keeps = _any
    tested_on: Keeps = _any


VARIANTS: Mapping[str, Variant] = {
    "everything": Variant(),
    "without pooled": Variant(_POOLED),
    "without tag logits": Variant(_TAGS),
    "without the last hidden layer": Variant(_HIDDEN),
    "pooled alone": Variant((*_HIDDEN, *_TAGS)),
    "each training clip in one soundfont": Variant((), lambda name, _: not is_again(name)),
    "FluidR3_GM unheard": Variant((), _not("FluidR3_GM"), _only("FluidR3_GM")),
    "FluidR3_GM unheard, without pooled": Variant(_POOLED, _not("FluidR3_GM"), _only("FluidR3_GM")),
    "FluidR3_GM and Sonivox unheard": Variant(
        (), lambda _, font: font not in ("FluidR3_GM", "Sonivox"), _only("FluidR3_GM")
    ),
}  # fmt: skip


def left(examples: Examples, fonts: Mapping[str, str | None], keeps: Keeps, silenced: Sequence[str]) -> Examples:
    """The examples that count, parts of their features silenced."""
    own = kept(examples, [row for row, name in enumerate(examples.ids) if keeps(name, fonts[name])])
    for name in silenced:
        own.features[..., FEATURES[name]] = 0
    return own


def ablate(work: Path, out: Path, names: Sequence[str]) -> None:
    """Teach an adapter for each variant and write how well it reads the labels."""
    llama: LlamaSpec = read_llama(provide_llama(PACKAGED[LLAMA], home_folder(), report=print))
    words = words_of(work)
    fonts = fonts_of(work)
    train, held = (read_examples(work, split, words, with_changed=split == "train") for split in ("train", "val"))
    found = {}
    for name in names:
        variant = VARIANTS[name]
        own = left(train, fonts, variant.trains_on, variant.silenced)
        adapter = untrained(llama, own)
        teach(adapter, own)
        tested = left(held, fonts, variant.tested_on, variant.silenced)
        found[name] = {"examples": len(own.ids), "tested": len(tested.ids), **scores(adapter, tested)}
        print(name, json.dumps(found[name]), flush=True)
    result = {"command": "python -m recipes.mini.ablate", "variants": found,
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
