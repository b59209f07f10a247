"""Encode every clip once: work/features.safetensors (per patch) and the tagger's probabilities.

Run: python recipes/mini/features.py --work DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mu_llama.audio.read import read_audio
from mu_llama.encoders.musicnn import build_musicnn

SAVE_EVERY = 200


def encode_clips(work: Path) -> None:
    """Encode the clips that aren't in the file yet; kill and restart as you like."""
    clips = [json.loads(line) for line in (work / "clips.jsonl").read_text().splitlines()]
    path = work / "features.safetensors"
    done: dict[str, torch.Tensor] = {}
    if path.exists():
        with safe_open(path, "pt") as file:
            done = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    encoder = build_musicnn()
    todo = [clip for clip in clips if f"{clip['id']}/features" not in done]
    for number, clip in enumerate(todo, start=1):
        heard = encoder.listen(read_audio(work / clip["path"], rate_hz=encoder.rate_hz))
        done[f"{clip['id']}/features"] = torch.cat([getattr(heard, part) for part in encoder.parts], -1)  # (P, D)
        done[f"{clip['id']}/weights"] = heard.weights
        done[f"{clip['id']}/tags"] = heard.averaged().tag_probabilities[0]
        if number % SAVE_EVERY == 0 or number == len(todo):
            _save(done, path, tag_names=list(encoder.tag_names), fingerprint=encoder.fingerprint)
            print(f"{number}/{len(todo)} clips", flush=True)


def _save(tensors: dict[str, torch.Tensor], path: Path, *, tag_names: list[str], fingerprint: str) -> None:
    scratch = path.with_suffix(".partial")
    save_file(tensors, scratch, metadata={"tag_names": json.dumps(tag_names), "encoder": fingerprint})
    scratch.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    encode_clips(parser.parse_args().work)
