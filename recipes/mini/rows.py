"""Conversations about the tracks, as rows that `mu-llama train` reads.

A description names only labels of which the pretrained adapter is certain (`clear.jsonl`). Run in the
project's environment: python -m recipes.mini.rows --work DIR
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mu_llama.files import read_lines, to_line, write_whole
from mu_llama.labels.track import Track
from mu_llama.musicqa.dialogues.compose import conversation_rows
from mu_llama.musicqa.dialogues.track_labels import AnswerBalancer
from recipes.mini.plans import PATCHED
from recipes.mini.tracks import changed_track

MAX_TURNS = 12
"""Long conversations share the audio tokens in front of them, so that training spends its time on answers."""
# Conversations a clip version, by group: no group may drown the others, and what is no music must not be forgotten.
SHARES = {"A": 0.5, "B": 0.6, "C": 0.35, "D": 0.9, "E": 1.5, "F": 1.5, "N": 2.0}
HELD_OUT_SHARE = 2.0
"""How much more often there are questions about a version that the adapter wasn't trained on, as new music will be."""


def _read(work: Path, split: str) -> list[Track]:
    clear = {row["id"]: tuple(row["clear"]) for row in read_lines(work / "clear.jsonl")}
    tracks = [Track.from_dict(row) for row in read_lines(work / f"tracks.{split}.jsonl")]
    return [replace(track, tags={**track.tags, "clear": clear[track.id]}) for track in tracks]


def write_rows(work: Path, shares: Mapping[str, float]) -> None:
    """Write conversations for training and validation: `train.jsonl` and `val.jsonl`."""
    train, validation = (_read(work, split) for split in ("train", "val"))
    balance, rng, rows = AnswerBalancer(train), random.Random("rows"), list[dict[str, Any]]()
    for track in train:
        for version in filter(None, (track, changed_track(work, track))):
            share = shares[track.source[-1]] * (HELD_OUT_SHARE if track.id.endswith(PATCHED) else 1.0)
            count = int(share + rng.random())
            rows += conversation_rows(version, count=count, rng=rng, balancer=balance, max_turns=MAX_TURNS)
    rng.shuffle(rows)
    for number, row in enumerate(rows):
        row["id"] = f"{row['id']}:{number}"
    write_whole(work / "train.jsonl", map(to_line, rows))
    asked = [
        row for track in validation for row in conversation_rows(track, count=1, rng=rng, balancer=balance, max_turns=4)
    ]
    write_whole(work / "val.jsonl", map(to_line, asked))
    turns = sum(len(row["turns"]) for row in rows)
    print(f"{len(rows)} conversations, {turns} answers; {len(asked)} for validation")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--shares", type=json.loads, default={}, help="JSON: conversations a clip version, by group")
    arguments = parser.parse_args()
    write_rows(arguments.work, {**SHARES, **arguments.shares})
