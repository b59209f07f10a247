"""Teach a fresh adapter the labels before any language model is asked: minutes instead of hours.

Each label is one audio token: its name in the language model's own embeddings, and whether it is heard. Yes and no
weigh the same within each kind of music, as in the questions. Writes a model folder, whose LLaMA is untuned, for
`model.base` of train.yaml, and prints how well the labels of the validation split are read.

Run: python recipes/mini/warm_up.py --work DIR
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ears import ENCODER, open_ears
from labels import GROUPS, labels_of
from torch import Tensor, nn
from tqdm import tqdm
from tracks import changed_track

from mu_llama.checkpoints.llama_source import open_tokenizer, read_llama
from mu_llama.checkpoints.native import ADAPTER_FILE, TUNING_FILE, ModelConfig, write_model_files
from mu_llama.checkpoints.parts import LlamaParts
from mu_llama.checkpoints.provision import PACKAGED, provide_llama
from mu_llama.checkpoints.safetensors_files import read_safetensors
from mu_llama.checkpoints.stored import StoredTensor, in_memory
from mu_llama.model.adapter import AudioAdapter
from mu_llama.model.config import AdapterConfig
from mu_llama.prompts import template_by_name
from mu_llama.records import Track, read_lines
from mu_llama.runtime import home_folder
from mu_llama.training.fresh import feature_statistics, fresh_adapter

LLAMA, TEMPLATE = "smollm2-135m-instruct", "chatml-measured"
FEWEST_TRACKS = 15
"""A label that fewer training tracks have isn't taught here."""
_SAME = 0.95
"""Cosine from which a name is taken to be an earlier model's."""
MOST_WEIGHT = 8.0
ONE_SIDED = 0.05
"""Weight of a label in a kind of music where it has one answer only."""
BATCH, EPOCHS, RATE, DECAY = 256, 12, 1e-3, 0.5
DROPPED, NOISE = 0.5, 0.5
"""Share of the features that are left out at a time, and deviations of noise on the others: 500 numbers of ten thousand
tracks are learned by heart otherwise."""


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
    _, hearing = open_ears()
    features, answers, sources, ids = list[Tensor](), list[list[float]](), list[str](), list[str]()
    rows = list(read_lines(work / f"tracks.{split}.jsonl"))
    for row in tqdm(rows, desc=f"{split} features", mininterval=5):
        track = Track.from_dict(row)
        known = labels_of(track)
        own = [known.get(word, torch.nan) for word in words]
        changed = changed_track(work, track) if with_changed else None
        for version in filter(None, (track, changed)):
            assert version.audio is not None
            features.append(hearing.hear(version.audio).values)
            answers.append(own)
            sources.append(track.source)
            ids.append(track.id)
    return Examples(torch.stack(features), torch.tensor(answers), sources, words, ids)


def words_of(work: Path) -> list[str]:
    """The labels that enough training tracks have."""
    counts = Counter[str]()
    for row in read_lines(work / "tracks.train.jsonl"):
        counts.update(word for word, there in labels_of(Track.from_dict(row)).items() if there)
    return sorted(word for word, count in counts.items() if count >= FEWEST_TRACKS)


def named(llama: LlamaParts, words: Sequence[str]) -> Tensor:
    """The language model's embeddings of words, the mean over each one's tokens: (words, H)."""
    tokenizer = open_tokenizer(llama, template_by_name(TEMPLATE))
    table = llama.tensors["model.embed_tokens.weight"].read().float()
    return torch.stack([table[tokenizer.encode_prompt(f" {word}")].mean(0) for word in words])


def weights_of(examples: Examples) -> Tensor:
    """Weights (N, labels) with which yes and no count the same within each source; 0 where nothing is known."""
    rows = defaultdict[str, list[int]](list)
    for number, source in enumerate(examples.sources):
        rows[source].append(number)
    weights = torch.zeros_like(examples.answers)
    for own in map(torch.tensor, rows.values()):
        weights[own] = _even(examples.answers[own])
    sounds = torch.tensor([word in GROUPS["sound"] for word in examples.words])
    weights[:, sounds] = _even(examples.answers[:, sounds])  # no kind of music has noise beside it
    return weights


def _even(answers: Tensor) -> Tensor:
    """Weights by which each column's yes and no count the same: (N, labels) to (N, labels)."""
    yes, no = (answers == 1).float(), (answers == 0).float()
    known, both = (yes + no).sum(0), (yes.sum(0) > 0) & (no.sum(0) > 0)
    even = [side * (known / (2 * side.sum(0)).clamp_min(1)).clamp_max(MOST_WEIGHT) for side in (yes, no)]
    return torch.where(both, even[0] + even[1], ONE_SIDED * (yes + no))


def read_labels(adapter: AudioAdapter, features: Tensor) -> Tensor:
    """Logits of the labels: (B, L, D) to (B, labels)."""
    assert adapter.tokens is not None, "made with them"
    logits: Tensor = adapter.tokens.reading(adapter(features))
    return logits


def _roughened(features: Tensor, adapter: AudioAdapter) -> Tensor:
    """Add noise, and put the mean of all tracks in the place of some features."""
    noisy = features + NOISE * adapter.feature_deviation * torch.randn_like(features)
    return torch.where(torch.rand_like(features) < DROPPED, adapter.feature_mean.expand_as(features), noisy)


def teach(adapter: AudioAdapter, train: Examples, *, seed: int = 0) -> None:
    """Fit the adapter to the labels."""
    weights, answers = weights_of(train), train.answers.nan_to_num()
    rows = len(answers)
    steps = EPOCHS * (rows // BATCH + 1)
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    torch.manual_seed(seed)
    bar = tqdm(total=steps, desc="warming up", mininterval=5)
    for _ in range(EPOCHS):
        for own in torch.randperm(rows).split(BATCH):
            logits = read_labels(adapter, _roughened(train.features[own], adapter))
            losses = nn.functional.binary_cross_entropy_with_logits(logits, answers[own], reduction="none")
            loss = (losses * weights[own]).sum() / weights[own].sum()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            bar.update()
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    bar.close()


@torch.no_grad()
def scores(adapter: AudioAdapter, held: Examples) -> dict[str, float]:
    """Balanced accuracy of each label within each source that has three yes and three no, averaged by group, in %."""
    said = read_labels(adapter, held.features) > 0
    found = defaultdict[str, list[float]](list)
    for source in [*sorted(set(held.sources)), None]:
        own = torch.tensor([source in (None, other) for other in held.sources])
        for column, word in enumerate(held.words):
            if (source is None) != (word in GROUPS["sound"]):
                continue
            yes, no = (own & (held.answers[:, column] == answer) for answer in (1, 0))
            if min(int(yes.sum()), int(no.sum())) >= 3:
                right = (said[yes, column].float().mean() + (~said[no, column]).float().mean()) / 2
                found[next(name for name, group in GROUPS.items() if word in group)].append(100 * float(right))
    return {name: round(sum(values) / len(values), 1) for name, values in found.items()}


def _sizes(llama: LlamaParts, features: Tensor, num_words: int) -> AdapterConfig:
    return AdapterConfig(
        num_encoder_layers=features.shape[1], encoder_width=features.shape[2], hidden_size=llama.config.hidden_size,
        num_conditioned_layers=0, num_heads=llama.config.num_attention_heads, num_audio_tokens=num_words,
        bridge_width=2 * llama.config.hidden_size, num_blocks=3, input_scaling="standardise",
    )  # fmt: skip


@torch.no_grad()
def untrained(llama: LlamaParts, train: Examples, *, seed: int = 0) -> AudioAdapter:
    """An adapter that standardises by the training tracks, and whose tokens have the labels' names."""
    sizes = _sizes(llama, train.features, len(train.words))
    drawn = fresh_adapter(sizes, seed=seed, statistics=feature_statistics(train.features))
    adapter = AudioAdapter(sizes)
    own = {name.removeprefix("adapter."): stored.read() for name, stored in drawn.items()}
    adapter.load_state_dict({name: value for name, value in own.items() if not name.startswith("conditioner.")})
    assert adapter.tokens is not None, "asked for"
    adapter.tokens.names.copy_(named(llama, train.words))
    present, absent = named(llama, ("yes", "no"))
    adapter.tokens.present.copy_(present)
    adapter.tokens.absent.copy_(absent)
    return adapter


@torch.no_grad()
def carry_over(adapter: AudioAdapter, folder: Path) -> dict[str, StoredTensor]:
    """Take from an earlier model how it names things and says yes or no; returns its LoRA, which reads them so.

    Its words may be others: each is recognised by its embedding, from which training moves it little.
    """
    earlier = {name: stored.read().float() for name, stored in read_safetensors(folder / ADAPTER_FILE).items()}
    assert adapter.tokens is not None, "asked for"
    tokens, names = adapter.tokens, earlier["adapter.tokens.names"]
    alike = nn.functional.cosine_similarity(tokens.names[:, None], names[None], dim=-1)
    found = 0
    for own in range(len(tokens.names)):
        other = int(alike[own].argmax())
        if alike[own, other] > _SAME and int(alike[:, other].argmax()) == own:
            tokens.names[own] = names[other]
            found += 1
    tokens.present.copy_(earlier["adapter.tokens.present"])
    tokens.absent.copy_(earlier["adapter.tokens.absent"])
    print(f"{found} of {len(tokens.names)} words were known to {folder}")
    return read_safetensors(folder / TUNING_FILE)


def write(folder: Path, adapter: AudioAdapter, tuning: Mapping[str, StoredTensor]) -> None:
    """Write the adapter as a model folder."""
    sizes = adapter.config
    tensors = {f"adapter.{name}": value for name, value in adapter.state_dict().items()}
    tensors["conditioner.prefix"] = torch.zeros(0, sizes.hidden_size)
    tensors["conditioner.gate"] = torch.zeros(0, sizes.num_heads)
    config = ModelConfig("mini-warm", TEMPLATE, sizes, ENCODER, {"packaged": LLAMA}, {"adapter": "Apache-2.0"})
    write_model_files(folder, config, adapter={n: in_memory(t) for n, t in tensors.items()}, tuning=tuning)


def warm_up(work: Path, out: Path, *, after: Path | None = None) -> None:
    """Do it all, and print the validation scores by group of labels."""
    llama = read_llama(provide_llama(PACKAGED[LLAMA], home_folder(), report=print))
    words = words_of(work)
    train = read_examples(work, "train", words, with_changed=True)
    held = read_examples(work, "val", words, with_changed=False)
    adapter = untrained(llama, train)
    tuning = {} if after is None else carry_over(adapter, after)
    teach(adapter, train)
    found = scores(adapter, held)
    print(f"{len(words)} labels, {len(train.sources)} examples; right in validation, %: {json.dumps(found)}")
    write(out, adapter, tuning)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--out", type=Path, help="default: WORK/warm")
    parser.add_argument("--after", type=Path, help="model folder whose LoRA goes on being trained, with this adapter")
    arguments = parser.parse_args()
    warm_up(arguments.work, arguments.out or arguments.work / "warm", after=arguments.after)
