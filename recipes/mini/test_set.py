"""Write the held-out clips' features, labels and measured facts as a fixture that benchmarks/mini scores anywhere.

Run: python -m recipes.mini.test_set --work DIR --out benchmarks/data [--split val]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mu_llama.audio.facts import measure_facts
from mu_llama.files import to_line, write_whole
from mu_llama.inference.extractor import in_words
from mu_llama.labels.track import Track
from recipes.mini.encoder import open_encoder
from recipes.mini.tag_words import GENRES, VOICE_TAGS
from recipes.mini.tracks import read_tracks

_SOLO_TAGS = {
    "mtt:guitar": "acoustic guitar", "mtt:violin": "violin", "mtt:piano": "piano", "mtt:harpsichord": "harpsichord",
    "mtt:flute": "flute", "mtt:sitar": "sitar", "mtt:harp": "harp", "mtt:cello": "cello",
}  # fmt: skip
_MEASURED_EVERY = 8


def _top(tags: Mapping[str, float], table: Mapping[str, str]) -> str:
    return table[max((tag for tag in table if tag in tags), key=lambda tag: tags[tag])]


_SAID_BY_TAGS = {
    "drums": ("mtt:drums", "mtt:beats", "mtt:beat"), "guitar": ("mtt:guitar", "msd:guitar"), "piano": ("mtt:piano",),
    "strings": ("mtt:strings", "mtt:violin"), "synthesizer": ("mtt:synth", "mtt:electronic"), "voice": VOICE_TAGS,
}  # fmt: skip


def _with_tops(track: Track, tags: Mapping[str, float]) -> Track:
    """Add what the tagger alone would say, as a floor to beat."""
    tops = {"top instrument": (_top(tags, _SOLO_TAGS),), "top genre": (_top(tags, GENRES),)}
    said = {f"tagger {word}": round(max(tags[tag] for tag in names), 3) for word, names in _SAID_BY_TAGS.items()}
    facts = {**track.facts, **said}
    return replace(track, guesses={**track.guesses, **tops}, facts=facts, audio=None, licence=None)


def in_bytes(features: torch.Tensor) -> dict[str, torch.Tensor]:
    """Features (N, L, D) in a byte a number: `codes * scale + lowest` has an error of 0.3 % of their std."""
    lowest, highest = features.amin(0), features.amax(0)
    scale = ((highest - lowest) / 255).clamp_min(1e-8)
    return {"codes": ((features - lowest) / scale).round().byte(), "scale": scale, "lowest": lowest}


def write_test_set(work: Path, out: Path, *, split: str = "test") -> None:
    """Write mini_test.safetensors (see `in_bytes`) and mini_test.jsonl, a track a row with `measured` beside it."""
    encoder, extractor = open_encoder()
    features, rows = list[torch.Tensor](), list[dict[str, Any]]()
    for number, track in enumerate(read_tracks(work)[split]):
        assert track.audio is not None
        values = extractor.extract(track.audio).values
        tags = encoder.tag_probabilities(values)
        facts = in_words(measure_facts(track.audio)) if number % _MEASURED_EVERY == 0 else {}
        measured = {name: (fact.text, fact.confidence) for name, fact in facts.items() if name in ("tempo", "key")}
        features.append(torch.from_numpy(values))
        rows.append({**_with_tops(track, tags).to_dict(), "measured": measured})
    out.mkdir(parents=True, exist_ok=True)
    save_file(in_bytes(torch.stack(features)), out / "mini_test.safetensors")
    write_whole(out / "mini_test.jsonl", map(to_line, rows))
    print(f"{len(rows)} clips in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--out", type=Path, required=True, help="benchmarks/data holds what is in the repository")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="val: to choose between designs")
    arguments = parser.parse_args()
    write_test_set(arguments.work, arguments.out, split=arguments.split)
