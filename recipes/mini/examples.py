"""Tracks as examples that an adapter learns labels from: features, known answers, and the weight of each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from mu_llama.files import read_lines
from mu_llama.labels.track import Track
from mu_llama.model.adapter import AudioAdapter
from recipes.mini.encoder import open_encoder
from recipes.mini.labels import GROUPS, labels_of
from recipes.mini.tracks import changed_track

MIN_TRACKS = 15
"""A label that fewer training tracks have isn't learned."""
MAX_WEIGHT = 8.0
_NEVER = -1e4  # a logit; with infinity gradients wouldn't be numbers
ONE_SIDED, ONE_SIDED_GENRE = 0.05, 0.3
"""Weight of a label in a kind of music where it has one answer only. Of genres it is more: else a style that only
rendered bands have would be predicted of any recording."""


@dataclass(frozen=True)
class Examples:
    """Tracks with what is known of them."""

    features: Tensor
    """(N, L, D)."""
    answers: Tensor
    """(N, labels): 1 yes, 0 no, NaN unknown."""
    sources: Sequence[str]
    """The kind of music of each track."""
    words: Sequence[str]
    """The labels."""
    ids: Sequence[str] = ()
    """The clip of each track."""


def read_examples(work: Path, split: str, words: Sequence[str], *, with_changed: bool) -> Examples:
    """Read tracks and their features, those of changed versions too."""
    _, extractor = open_encoder()
    features, answers, sources, ids = list[Tensor](), list[list[float]](), list[str](), list[str]()
    rows = list(read_lines(work / f"tracks.{split}.jsonl"))
    for row in tqdm(rows, desc=f"{split} features", mininterval=5):
        track = Track.from_dict(row)
        known = labels_of(track)
        row_answers = [known.get(word, torch.nan) for word in words]
        changed = changed_track(work, track) if with_changed else None
        for version in filter(None, (track, changed)):
            assert version.audio is not None
            features.append(torch.from_numpy(extractor.extract(version.audio).values))
            answers.append(row_answers)
            sources.append(track.source)
            ids.append(track.id)
    return Examples(torch.stack(features), torch.tensor(answers), sources, words, ids)


def words_of(work: Path) -> list[str]:
    """The labels that enough training tracks have."""
    counts = Counter[str]()
    for row in read_lines(work / "tracks.train.jsonl"):
        counts.update(word for word, holds in labels_of(Track.from_dict(row)).items() if holds)
    return sorted(word for word, count in counts.items() if count >= MIN_TRACKS)


def weights_of(examples: Examples) -> Tensor:
    """Weights (N, labels) with which yes and no count the same within each source; 0 where nothing is known."""
    rows = defaultdict[str, list[int]](list)
    for number, source in enumerate(examples.sources):
        rows[source].append(number)
    weights = torch.zeros_like(examples.answers)
    genres = torch.tensor([word in GROUPS["genre"] for word in examples.words])
    one_sided = torch.where(genres, ONE_SIDED_GENRE, ONE_SIDED)
    for source_rows in map(torch.tensor, rows.values()):
        weights[source_rows] = _even(examples.answers[source_rows], one_sided)
    sounds = torch.tensor([word in GROUPS["sound"] for word in examples.words])
    weights[:, sounds] = _even(examples.answers[:, sounds], one_sided[sounds])  # no kind of music has noise beside it
    return weights


def _even(answers: Tensor, one_sided: Tensor) -> Tensor:
    """Weights by which each column's yes and no count the same, or `one_sided`: (N, labels) to (N, labels)."""
    yes, no = (answers == 1).float(), (answers == 0).float()
    known, both = (yes + no).sum(0), (yes.sum(0) > 0) & (no.sum(0) > 0)
    even = [side * (known / (2 * side.sum(0)).clamp_min(1)).clamp_max(MAX_WEIGHT) for side in (yes, no)]
    return torch.where(both, even[0] + even[1], one_sided * (yes + no))


def choice_losses(logits: Tensor, answers: Tensor) -> Tensor:
    """How unlikely it is that one of the names that hold is chosen among all that are known: (B, G) to (B).

    Cross entropy with several right answers; 0 where none is known to hold.
    """
    known = logits.masked_fill(answers.isnan(), _NEVER)
    right = logits.masked_fill(answers != 1, _NEVER)
    losses = known.logsumexp(1) - right.logsumexp(1)
    return torch.where((answers == 1).any(1), losses, 0.0)


def choice_weights(examples: Examples, columns: Tensor) -> Tensor:
    """Weights (N) by which each set of names in these columns counts the same in its kind of music; 0 without one."""
    holds = examples.answers[:, columns] == 1
    keys = [(source, *row.nonzero()[:, 0].tolist()) for source, row in zip(examples.sources, holds, strict=True)]
    counts = Counter(keys)
    sets = Counter(key[0] for key in counts if len(key) > 1)
    of_source = Counter(key[0] for key in keys if len(key) > 1)
    even = [of_source[key[0]] / (sets[key[0]] * counts[key]) if len(key) > 1 else 0.0 for key in keys]
    return torch.tensor(even).clamp_max(MAX_WEIGHT)


def read_labels(adapter: AudioAdapter, features: Tensor) -> Tensor:
    """Logits of the labels: (B, L, D) to (B, labels)."""
    assert adapter.tokens is not None, "made with them"
    logits: Tensor = adapter.tokens.reading(adapter(features))
    return logits
