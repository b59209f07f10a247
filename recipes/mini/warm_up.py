"""Teach a fresh adapter the labels before any language model is asked: minutes instead of hours.

Each label is one audio token: its name in the language model's own embeddings, and whether it is heard. One more for
each kind of label (genre, ensemble ...) holds the name of the likeliest. Yes and no
weigh the same within each kind of music, as in the questions. Writes a model folder, whose LLaMA is untuned, for
`model.base` of train.yaml, and prints how well the labels of the validation split are read.

Run: python recipes/mini/warm_up.py --work DIR
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from certainty import UNHEARD, by_font, fitting_temperature, fonts_of, soften, write_clear
from ears import ENCODER
from examples import Examples, choice_losses, choice_weights, read_examples, read_labels, weights_of, words_of
from labels import CHOICES, GROUPS
from torch import Tensor, nn
from tqdm import tqdm

from mu_llama.checkpoints.embedded import PACKAGED, provide_llama
from mu_llama.checkpoints.lazy_tensor import LazyTensor, in_memory
from mu_llama.checkpoints.llama_source import open_tokenizer, read_llama
from mu_llama.checkpoints.native import ADAPTER_FILE, TUNING_FILE, ModelConfig, write_model_files
from mu_llama.checkpoints.safetensors_files import read_safetensors
from mu_llama.checkpoints.spec import LlamaSpec
from mu_llama.devices import home_folder
from mu_llama.model.adapter import AudioAdapter
from mu_llama.model.config import AdapterConfig
from mu_llama.text.prompts import template_by_name
from mu_llama.training.features import augment_features
from mu_llama.training.initialization import FeatureStatistics, feature_statistics, fresh_adapter

LLAMA, TEMPLATE = "smollm2-135m-instruct", "chatml-measured"
_SAME = 0.95
"""Cosine from which a name is taken to be an earlier model's."""
BATCH, DECAY = 256, 0.5
DROPPED, NOISE = 0.5, 0.5
"""Share of the features that are left out at a time, and deviations of noise on the others: 500 numbers of ten thousand
tracks are learned by heart otherwise."""

CHOICE = 0.3
"""Weight of choosing among the genres, beside hearing each: "what genre is this?" is answered by one of them."""


@dataclass(frozen=True)
class Pace:
    """How long and how quickly to learn."""

    epochs: int
    rate: float
    """The highest."""


FROM_NOTHING, GOING_ON = Pace(12, 1e-3), Pace(12, 5e-4)
"""An adapter goes on gently: at the rate of a fresh one it forgets what it heard before (docs/experiments/mini.md)."""


def named(llama: LlamaSpec, words: Sequence[str]) -> Tensor:
    """The language model's embeddings of words, the mean over each one's tokens: (words, H)."""
    tokenizer = open_tokenizer(llama, template_by_name(TEMPLATE))
    table = llama.tensors["model.embed_tokens.weight"].read().float()
    return torch.stack([table[tokenizer.encode_prompt(f" {word}")].mean(0) for word in words])


def teach(adapter: AudioAdapter, train: Examples, *, pace: Pace = FROM_NOTHING, seed: int = 0) -> None:
    """Fit the adapter to the labels."""
    weights, answers = weights_of(train), train.answers.nan_to_num()
    genres = torch.tensor([word in GROUPS["genre"] for word in train.words])
    choices = choice_weights(train, genres)
    statistics = FeatureStatistics(adapter.feature_mean, adapter.feature_deviation)
    rows = len(answers)
    steps = pace.epochs * (rows // BATCH + 1)
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=pace.rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, pace.rate, total_steps=steps, pct_start=0.1)
    torch.manual_seed(seed)
    bar = tqdm(total=steps, desc="warming up", mininterval=5)
    for _ in range(pace.epochs):
        for own in torch.randperm(rows).split(BATCH):
            rough = augment_features(train.features[own], statistics, noise=NOISE, dropout=DROPPED)
            logits = read_labels(adapter, rough)
            losses = nn.functional.binary_cross_entropy_with_logits(logits, answers[own], reduction="none")
            loss = (losses * weights[own]).sum() / weights[own].sum()
            chosen = choice_losses(logits[:, genres], train.answers[own][:, genres])
            loss = loss + CHOICE * (chosen * choices[own]).sum() / choices[own].sum().clamp_min(1)
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
        own = torch.tensor([source in (None, other) for other in held.sources], dtype=torch.bool)
        for column, word in enumerate(held.words):
            if (source is None) != (word in GROUPS["sound"]):
                continue
            yes, no = (own & (held.answers[:, column] == answer) for answer in (1, 0))
            if min(int(yes.sum()), int(no.sum())) >= 3:
                right = (said[yes, column].float().mean() + (~said[no, column]).float().mean()) / 2
                found[next(name for name, group in GROUPS.items() if word in group)].append(100 * float(right))
    return {name: round(sum(values) / len(values), 1) for name, values in found.items()}


def _sizes(llama: LlamaSpec, features: Tensor, num_words: int) -> AdapterConfig:
    return AdapterConfig(
        num_encoder_layers=features.shape[1], encoder_width=features.shape[2], hidden_size=llama.config.hidden_size,
        num_conditioned_layers=0, num_heads=llama.config.num_attention_heads,
        num_audio_tokens=num_words + len(CHOICES), num_choices=len(CHOICES),
        bridge_width=2 * llama.config.hidden_size, num_blocks=3, input_scaling="standardise",
    )  # fmt: skip


@torch.no_grad()
def untrained(llama: LlamaSpec, train: Examples, *, seed: int = 0) -> AudioAdapter:
    """An adapter that standardises by the training tracks, and whose tokens have the labels' names."""
    sizes = _sizes(llama, train.features, len(train.words))
    drawn = fresh_adapter(sizes, seed=seed, statistics=feature_statistics(train.features))
    adapter = AudioAdapter(sizes)
    own = {name.removeprefix("adapter."): stored.read() for name, stored in drawn.items()}
    adapter.load_state_dict({name: value for name, value in own.items() if not name.startswith("conditioner.")})
    assert adapter.tokens is not None, "asked for"
    adapter.tokens.names.copy_(named(llama, train.words))
    adapter.tokens.kinds.copy_(named(llama, list(CHOICES)))
    adapter.tokens.members.copy_(torch.tensor([[word in own for word in train.words] for own in CHOICES.values()]))
    present, absent = named(llama, ("yes", "no"))
    adapter.tokens.present.copy_(present)
    adapter.tokens.absent.copy_(absent)
    return adapter


@torch.no_grad()
def carry_over(adapter: AudioAdapter, words: Sequence[str], folder: Path) -> dict[str, LazyTensor]:
    """Go on from an earlier model: what it hears, how it names things and says yes or no; returns its LoRA.

    Its words may be others: each is recognised by its embedding, from which training moves it little. With other
    features nothing of what it hears fits, and that is learned anew; so are genres in any case, since one that it
    learned to deny, for want of examples, stays denied (docs/experiments/mini.md).
    """
    earlier = {
        name.removeprefix("adapter."): stored.read().float()
        for name, stored in read_safetensors(folder / ADAPTER_FILE).items()
    }
    assert adapter.tokens is not None, "asked for"
    own, names = adapter.state_dict(), earlier["tokens.names"]
    hears = {name for name in own if not name.startswith("tokens.")}
    is_alike = all(name in earlier and earlier[name].shape == own[name].shape for name in hears)
    for name in hears if is_alike else ():
        own[name].copy_(earlier[name])
    alike = nn.functional.cosine_similarity(own["tokens.names"][:, None], names[None], dim=-1)
    readings = ("tokens.reading.weight", "tokens.reading.bias") if is_alike else ()
    found = 0
    for word in range(len(alike)):
        other = int(alike[word].argmax())
        if alike[word, other] > _SAME and int(alike[:, other].argmax()) == word:
            for name in ("tokens.names", *(() if words[word] in GROUPS["genre"] else readings)):
                own[name][word] = earlier[name][other]
            found += 1
    adapter.tokens.present.copy_(earlier["tokens.present"])
    adapter.tokens.absent.copy_(earlier["tokens.absent"])
    print(f"{found} of {len(alike)} words were known to {folder}" + ("" if is_alike else "; it hears other features"))
    return read_safetensors(folder / TUNING_FILE)


def write(folder: Path, adapter: AudioAdapter, tuning: Mapping[str, LazyTensor]) -> None:
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
    everything = read_examples(work, "train", words, with_changed=True)
    train, unheard = by_font(everything, fonts_of(work))
    held = read_examples(work, "val", words, with_changed=False)
    adapter = untrained(llama, train)
    tuning = {} if after is None else carry_over(adapter, words, after)
    teach(adapter, train, pace=FROM_NOTHING if after is None else GOING_ON)
    found = scores(adapter, held)
    print(
        f"{len(words)} labels, {len(train.sources)} examples; right in validation, %: {json.dumps(found)}", flush=True
    )
    temperature = fitting_temperature(adapter, unheard)
    print(f"of {UNHEARD}: {json.dumps(scores(adapter, unheard))}; temperature {temperature}")
    soften(adapter, temperature, train)
    write_clear(work, adapter, (everything, held))
    write(out, adapter, tuning)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--out", type=Path, help="default: WORK/warm")
    parser.add_argument("--after", type=Path, help="model folder whose adapter and LoRA go on being trained")
    arguments = parser.parse_args()
    warm_up(arguments.work, arguments.out or arguments.work / "warm", after=arguments.after)
