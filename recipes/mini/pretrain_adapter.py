"""Pretrain a fresh adapter on the labels, without the language model: minutes instead of hours.

Each label is one audio token: its name in the language model's own embeddings, and whether it holds. One more for each
kind of label (genre, ensemble ...) holds the name of the likeliest. Yes and no weigh the same within each kind of
music, as in the questions. Writes a model folder, whose LLaMA is untuned, for
`model.base` of train.yaml, and prints how well it predicts the labels of the validation split.

Run: python -m recipes.mini.pretrain_adapter --work DIR
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mu_llama.arrays import FLOAT32, to_numpy, to_torch
from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.embedded import PACKAGED, provide_llama
from mu_llama.checkpoints.formats.native import ADAPTER_FILE, TUNING_FILE, ModelConfig, write_model_files
from mu_llama.checkpoints.formats.tensor_files import read_safetensors
from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_memory
from mu_llama.checkpoints.load import open_tokenizer, read_llama
from mu_llama.checkpoints.spec import LlamaSpec
from mu_llama.model.adapter import AudioAdapter
from mu_llama.model.config import AdapterConfig
from mu_llama.text.prompts import template_by_name
from mu_llama.training.features import augment_features
from mu_llama.training.initialization import FeatureStatistics, feature_statistics, fresh_adapter
from recipes.mini.calibration import (
    HELD_OUT_FONT,
    apply_temperature,
    by_font,
    fit_temperature,
    fonts_of,
    write_certain_words,
)
from recipes.mini.encoder import ENCODER
from recipes.mini.examples import (
    Examples,
    choice_losses,
    choice_weights,
    read_examples,
    read_labels,
    weights_of,
    words_of,
)
from recipes.mini.labels import CHOICES, GROUPS

LLAMA, TEMPLATE = "smollm2-135m-instruct", "chatml-measured"
_SAME = 0.95
"""Cosine from which a name is taken to be an earlier model's."""
BATCH, DECAY = 256, 0.5
DROPPED, NOISE = 0.5, 0.5
"""Share of the features that are dropped at a time, and standard deviations of noise on the others: otherwise an
adapter overfits to 500 numbers of ten thousand tracks."""

CHOICE = 0.3
"""Weight of choosing among the genres, beside predicting each: "what genre is this?" is answered by one of them."""


@dataclass(frozen=True)
class Schedule:
    """How long and how quickly to learn."""

    epochs: int
    max_lr: float
    """Highest learning rate."""


FROM_SCRATCH, CONTINUED = Schedule(12, 1e-3), Schedule(12, 5e-4)
"""An earlier adapter goes on at half the learning rate: at the higher one it forgets (docs/experiments/mini.md)."""


def named(llama: LlamaSpec, words: Sequence[str]) -> Tensor:
    """The language model's embeddings of words, the mean over each one's tokens: (words, H)."""
    tokenizer = open_tokenizer(llama, template_by_name(TEMPLATE))
    table = to_torch(llama.tensors["model.embed_tokens.weight"].to(FLOAT32).read())
    return torch.stack([table[tokenizer.encode_prompt(f" {word}")].mean(0) for word in words])


def train_adapter(adapter: AudioAdapter, train: Examples, *, schedule: Schedule = FROM_SCRATCH, seed: int = 0) -> None:
    """Fit the adapter to the labels."""
    weights, answers = weights_of(train), train.answers.nan_to_num()
    genres = torch.tensor([word in GROUPS["genre"] for word in train.words])
    choices = choice_weights(train, genres)
    statistics = FeatureStatistics(adapter.feature_mean, adapter.feature_std)
    rows = len(answers)
    steps = schedule.epochs * (rows // BATCH + 1)
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=schedule.max_lr, weight_decay=DECAY)
    lr_schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.max_lr, total_steps=steps, pct_start=0.1)
    torch.manual_seed(seed)
    bar = tqdm(total=steps, desc="pretraining", mininterval=5)
    for _ in range(schedule.epochs):
        for batch in torch.randperm(rows).split(BATCH):
            augmented = augment_features(train.features[batch], statistics, noise=NOISE, dropout=DROPPED)
            logits = read_labels(adapter, augmented)
            losses = nn.functional.binary_cross_entropy_with_logits(logits, answers[batch], reduction="none")
            loss = (losses * weights[batch]).sum() / weights[batch].sum()
            chosen = choice_losses(logits[:, genres], train.answers[batch][:, genres])
            loss = loss + CHOICE * (chosen * choices[batch]).sum() / choices[batch].sum().clamp_min(1)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
            optimiser.step()
            lr_schedule.step()
            bar.update()
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    bar.close()


@torch.no_grad()
def scores(adapter: AudioAdapter, examples: Examples) -> dict[str, float]:
    """Balanced accuracy of each label within each source that has three yes and three no, averaged by group, in %."""
    predicted = read_labels(adapter, examples.features) > 0
    by_group = defaultdict[str, list[float]](list)
    for source in [*sorted(set(examples.sources)), None]:
        is_of_source = torch.tensor([source in (None, other) for other in examples.sources], dtype=torch.bool)
        for column, word in enumerate(examples.words):
            if (source is None) != (word in GROUPS["sound"]):
                continue
            yes, no = (is_of_source & (examples.answers[:, column] == answer) for answer in (1, 0))
            if min(int(yes.sum()), int(no.sum())) >= 3:
                right = (predicted[yes, column].float().mean() + (~predicted[no, column]).float().mean()) / 2
                by_group[next(name for name, group in GROUPS.items() if word in group)].append(100 * float(right))
    return {name: round(sum(values) / len(values), 1) for name, values in by_group.items()}


def _sizes(llama: LlamaSpec, features: Tensor, num_words: int) -> AdapterConfig:
    return AdapterConfig(
        num_encoder_layers=features.shape[1], encoder_width=features.shape[2], hidden_size=llama.config.hidden_size,
        num_conditioned_layers=0, num_heads=llama.config.num_attention_heads,
        num_audio_tokens=num_words + len(CHOICES), num_choices=len(CHOICES),
        bridge_width=2 * llama.config.hidden_size, num_blocks=3, input_scaling="standardise",
    )  # fmt: skip


@torch.no_grad()
def build_adapter(llama: LlamaSpec, train: Examples, *, seed: int = 0) -> AudioAdapter:
    """An adapter that standardises by the training tracks, and whose tokens have the labels' names."""
    sizes = _sizes(llama, train.features, len(train.words))
    drawn = fresh_adapter(sizes, seed=seed, statistics=feature_statistics(train.features))
    adapter = AudioAdapter(sizes)
    state = {name.removeprefix("adapter."): to_torch(stored.read()) for name, stored in drawn.items()}
    adapter.load_state_dict({name: value for name, value in state.items() if not name.startswith("conditioner.")})
    assert adapter.tokens is not None, "asked for"
    adapter.tokens.names.copy_(named(llama, train.words))
    adapter.tokens.kinds.copy_(named(llama, list(CHOICES)))
    adapter.tokens.members.copy_(
        torch.tensor([[word in choice for word in train.words] for choice in CHOICES.values()])
    )
    present, absent = named(llama, ("yes", "no"))
    adapter.tokens.present.copy_(present)
    adapter.tokens.absent.copy_(absent)
    return adapter


@torch.no_grad()
def carry_over(adapter: AudioAdapter, words: Sequence[str], folder: Path) -> dict[str, LazyTensor]:
    """Continue from an earlier model: copy its weights and the embeddings of its words, yes and no; return its LoRA.

    Its words may be others: each is recognised by its embedding, from which training moves it little. With other
    features its weights don't fit, and are trained from scratch; so are genres in any case, since one that it learned
    to deny, for want of examples, stays denied (docs/experiments/mini.md).
    """
    earlier = {
        name.removeprefix("adapter."): to_torch(stored.to(FLOAT32).read())
        for name, stored in read_safetensors(folder / ADAPTER_FILE).items()
    }
    assert adapter.tokens is not None, "asked for"
    state, names = adapter.state_dict(), earlier["tokens.names"]
    shared = {name for name in state if not name.startswith("tokens.")}
    is_alike = all(name in earlier and earlier[name].shape == state[name].shape for name in shared)
    for name in shared if is_alike else ():
        state[name].copy_(earlier[name])
    alike = nn.functional.cosine_similarity(state["tokens.names"][:, None], names[None], dim=-1)
    readings = ("tokens.reading.weight", "tokens.reading.bias") if is_alike else ()
    num_known = 0
    for word in range(len(alike)):
        other = int(alike[word].argmax())
        if alike[word, other] > _SAME and int(alike[:, other].argmax()) == word:
            for name in ("tokens.names", *(() if words[word] in GROUPS["genre"] else readings)):
                state[name][word] = earlier[name][other]
            num_known += 1
    adapter.tokens.present.copy_(earlier["tokens.present"])
    adapter.tokens.absent.copy_(earlier["tokens.absent"])
    print(
        f"{num_known} of {len(alike)} words were known to {folder}" + ("" if is_alike else "; it reads other features")
    )
    return read_safetensors(folder / TUNING_FILE)


def write(folder: Path, adapter: AudioAdapter, tuning: Mapping[str, LazyTensor]) -> None:
    """Write the adapter as a model folder."""
    sizes = adapter.config
    tensors = {f"adapter.{name}": value for name, value in adapter.state_dict().items()}
    tensors["conditioner.prefix"] = torch.zeros(0, sizes.hidden_size)
    tensors["conditioner.gate"] = torch.zeros(0, sizes.num_heads)
    config = ModelConfig("mini-warm", TEMPLATE, sizes, ENCODER, {"packaged": LLAMA}, {"adapter": "Apache-2.0"})
    write_model_files(folder, config, adapter={n: in_memory(to_numpy(t)) for n, t in tensors.items()}, tuning=tuning)


def pretrain(work: Path, out: Path, *, after: Path | None = None) -> None:
    """Do it all, and print the validation scores by group of labels."""
    llama = read_llama(provide_llama(PACKAGED[LLAMA], home_folder(), report=print))
    words = words_of(work)
    everything = read_examples(work, "train", words, with_changed=True)
    train, held_out = by_font(everything, fonts_of(work))
    validation = read_examples(work, "val", words, with_changed=False)
    adapter = build_adapter(llama, train)
    tuning = {} if after is None else carry_over(adapter, words, after)
    train_adapter(adapter, train, schedule=FROM_SCRATCH if after is None else CONTINUED)
    results = scores(adapter, validation)
    print(
        f"{len(words)} labels, {len(train.sources)} examples; right in validation, %: {json.dumps(results)}", flush=True
    )
    temperature = fit_temperature(adapter, held_out)
    print(f"of {HELD_OUT_FONT}: {json.dumps(scores(adapter, held_out))}; temperature {temperature}")
    apply_temperature(adapter, temperature, train)
    write_certain_words(work, adapter, (everything, validation))
    write(out, adapter, tuning)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--out", type=Path, help="default: WORK/warm")
    parser.add_argument("--after", type=Path, help="model folder whose adapter and LoRA go on being trained")
    arguments = parser.parse_args()
    pretrain(arguments.work, arguments.out or arguments.work / "warm", after=arguments.after)
